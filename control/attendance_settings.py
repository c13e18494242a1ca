"""`[control.attendance]`: finding out who has come, at clusters that do not tell."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["AttendanceSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class AttendanceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.attendance]`: asking who has come to clusters that do not tell.

    They are asked often for a while after a token was given; apart from that with every probe.
    """

    interval: Annotated[float, Meta(ge=0.05, le=60)] = 0.5
    """Seconds between two questions about one room. Default 0.5."""
    duration: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """Seconds after a token during which is asked, unless everybody has come before; 0: not at all.
    Default 60."""
    timeout: Seconds = 3.0
    """Seconds that a cluster gets for its answer. Default 3."""
    max_rooms: Count = 1000
    """Rooms asked about in the same time, by this process; for further ones the probes have to do.
    Default 1,000."""
    max_at_once: Count = 32
    """Questions under way at the same time in this process. Default 32."""
