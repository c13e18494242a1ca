"""A frame on its way through the bridge, with what is known of it besides its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bridges.media.own.layers import Dependencies
    from bridges.wire.frame import MediaFrame

__all__ = ["Piece", "fresh"]

_THE_ONE_BEFORE = (1,)


class Piece(NamedTuple):
    """What is handed from whoever brings a track to whoever takes it on. Times are the loop's."""

    frame: MediaFrame
    captured: float
    """When it began to age, in seconds: see bridges.media.own.ages."""
    needs: tuple[int, ...]
    """How many pieces before this one of the track those are that it cannot be decoded without."""
    discardable: bool = False
    """Whether no other needs this one."""
    temporal: int = 0
    spatial: int = 0
    """Layers, 0 (base) to 7."""
    body: bytes | None = None
    """What stands for the frame on our own wire (bridges.wire.own_media.body), where it came so: to pass it
    on over that wire, it need not be made again."""


def fresh(frame: MediaFrame, now: float, dependencies: Dependencies | None = None) -> Piece:
    """Return a frame of which no more is known than itself.

    With `dependencies`, those of its track, its layer is known; else a picture needs the one before it.
    """
    if dependencies is None:
        return Piece(frame, now, () if frame.key_frame else _THE_ONE_BEFORE)
    return Piece(frame, now, *dependencies.of(frame))
