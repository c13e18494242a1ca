"""How control talks to a cluster."""

from __future__ import annotations
