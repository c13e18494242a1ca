"""`[control.rooms]`: looking for rooms that nobody needs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RoomSettings"]


class RoomSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rooms]`: deleting rooms of our own kind of clusters that no placement knows."""

    interval: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """Seconds between looks. Default 60."""
    min_age: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds that the placement must be old which the room was made for. Default 60."""
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """Seconds that one cluster gets to list its rooms, and to delete those. Default 30."""
    at_once: Annotated[int, Meta(ge=1, le=1_000)] = 8
    """Clusters that are asked at the same time. Default 8."""
    max_listed: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Rooms of one cluster that are looked at, in the order in which it lists them. Default 20,000."""
    max_deleted: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    """Rooms of one cluster that are deleted at one look; 0: none ever. Default 100."""
