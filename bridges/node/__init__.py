"""The cluster as a bridge sees it: one port, one carrier per way to reach a cluster."""

from __future__ import annotations
