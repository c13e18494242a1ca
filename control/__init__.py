"""The central service: the registry of clusters, placement, cascading."""

from __future__ import annotations
