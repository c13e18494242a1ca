"""Regions, as clients need them to find the nearest one."""

from __future__ import annotations

from causeway.api.base import Answer
from causeway.api.clusters import Location

__all__ = ["RegionList", "RegionView"]


class RegionView(Answer, frozen=True, kw_only=True):
    """A region: configured, or named by a cluster."""

    name: str
    groups: list[str]
    location: Location | None
    ping_urls: list[str]
    """To measure the latency to the region with."""
    clusters: int
    """Clusters there that take clients now."""


class RegionList(Answer, frozen=True, kw_only=True):
    """`GET /v1/regions`, by name."""

    regions: list[RegionView]
