"""The media bridge: tracks pulled on demand, frames forwarded or dropped, never queued without bound."""

from __future__ import annotations
