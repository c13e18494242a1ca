"""`[control.placement]` and `[control.regions]`: where clients are, and how clusters are chosen for them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from causeway.api import Location
from causeway.api.base import HttpUrl, Region
from control.placement.policy import PolicySettings

__all__ = ["PlacementSettings", "RegionSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
Group = Annotated[str, Meta(min_length=1, max_length=64)]


class RegionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.regions.<name>]`: what is known of a region beside its clusters."""

    groups: tuple[Group, ...] = ()
    """Regions that share a group are near each other. Default: none."""
    location: Location | None = None
    """`{lat, lon}` in degrees. Default: unknown."""
    ping_urls: tuple[HttpUrl, ...] = ()
    """What clients measure their latency to the region with, beside its clusters' own. Default: none."""


class PlacementSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.placement]`: choosing clusters."""

    reservation_ttl: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    """Seconds that a seat is kept for a client that was sent to a cluster, until it shows up. Default 30."""
    sweep_interval: Seconds = 1.0
    """Seconds between looks for reservations that ran out. Default 1."""
    decisions_kept: Annotated[int, Meta(ge=0, le=10_000)] = 20
    """Newest decisions kept with each conference. Default 20."""
    max_age: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Seconds for which the clusters' load is remembered; changes of clusters count at once. Default 1."""
    lanes: Annotated[int, Meta(ge=1, le=16)] = 2
    """Database connections kept for joins, beside `database.pool_size`. Default 2."""
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Joins decided together when many come at once. Default 64."""
    max_waiting: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    """Joins waiting for a decision; further ones are answered 503. Default 4,096."""
    answer_ttl: Annotated[float, Meta(ge=60, le=604_800)] = 86_400.0
    """Seconds for which the answer to a join with an Idempotency-Key is kept. Default a day."""
    country_header: str = ""
    """Header in which a trusted proxy tells the client's country (ISO 3166, two letters). Default: none."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose country_header and X-Forwarded-For are believed (10.0.0.0/8). Default: none."""
    countries: dict[Country, Region] = field(default_factory=dict)
    """Region of each country, as {DE = "eu-west"}. Default: none."""
    geo_database: str = ""
    """MaxMind database file (GeoLite2-City or alike) that tells where an address is; needs the extra `geo`.
    Default: none."""
    policies: dict[str, PolicySettings] = field(default_factory=dict)
    """Placement policies by name, each a table: `[control.placement.policies.<name>]`. Default: none."""
