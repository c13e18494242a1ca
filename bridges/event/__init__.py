"""The event bridge: conference events between clusters."""

from __future__ import annotations
