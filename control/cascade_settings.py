"""`[control.cascade]`: how patient the executor of plans is with clusters."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = ["BreakerSettings", "CascadeSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class BreakerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.cascade.breaker]`: leaving a cluster alone that fails again and again.

    Each replica does so by what it sees itself.
    """

    failures: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Calls that fail in a row until the cluster is left alone. Default 5."""
    rest_base: Seconds = 1.0
    """Seconds that it is left alone at least, the first time; twice as long after every try in vain.
    Default 1."""
    rest_cap: Seconds = 30.0
    """Seconds that it is left alone at most. Default 30."""
    probes: Annotated[int, Meta(ge=1, le=100)] = 1
    """Actions tried at once after the rest; when one of them succeeds, everything goes on. Default 1."""


class CascadeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.cascade]`: when rooms and links are given up, and how long each step may take."""

    idle_grace: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """Seconds after which a cluster's room for a conference is removed, and its links with it, when nobody is
    there and nobody on the way. Default 30."""
    bridges_timeout: Seconds = 200.0
    """Seconds for asking a cluster for its bridges' addresses: an OWT cluster starts them first, which may
    take 90 for each. Default 200."""
    stop_timeout: Seconds = 10.0
    """Seconds for telling a cluster to end a cascade. Default 10."""
    move_timeout: Seconds = 10.0
    """Seconds for finding other clusters for the clients of one that was lost. Default 10."""
    move_ttl: Annotated[float, Meta(ge=1, le=86_400)] = 120.0
    """Seconds that a seat is kept for a client who was moved: it has to notice first. Default 120."""
    moves_at_once: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Clients moved in one step; the others follow in the next. Default 200."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
