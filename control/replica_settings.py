"""`[control.replica]`: this process among the others on the same database."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ReplicaSettings"]


class ReplicaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.replica]`: this process among the others on the same database.

    What a replica had to do is taken over at most `ttl` + `beat_interval` seconds after its death.
    """

    name: Annotated[str, Meta(max_length=253)] = ""
    """What operators see of it. Default: the host's name."""
    ttl: Annotated[float, Meta(ge=0.2, le=60)] = 1.2
    """Seconds after its last beat that it counts as alive. Default 1.2."""
    beat_interval: Annotated[float, Meta(ge=0.02, le=20)] = 0.3
    """Seconds between its beats; at most a third of `ttl`. Default 0.3."""
    forget_after: Annotated[float, Meta(ge=1, le=31_536_000)] = 86_400.0
    """Seconds that operators see a replica after it has gone. Default one day."""

    def __post_init__(self) -> None:
        """Refuse a lease that a single late beat would end."""
        if self.beat_interval * 3 > self.ttl:
            raise ValueError("beat_interval must be at most a third of ttl")
