"""What each picture of a track needs, worked out from its layer, as it is offered to a link.

Pure. A frame of the conference does not say what it needs. Its decoder needs at most: of its own temporal
layer and of each below, the last picture that others may need. That much is said of it. So pictures that
nobody needs can be left out at any time, and whole layers above the base up to the next key frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.wire.bitstream import BASE, layer_of
from bridges.wire.own_media.datagram import MAX_NEED, MAX_NEEDS

if TYPE_CHECKING:
    from bridges.wire.bitstream import Layer
    from bridges.wire.frame import MediaFrame

__all__ = ["Dependence", "Dependencies"]

_PLAIN: Final = 60
"""After so many pictures of the base in a row, most streams have nothing else,"""
_GLANCE: Final = 7
"""and only every so many is looked at; odd, as layers come in turn."""


class Dependence(NamedTuple):
    """What a frame needs."""

    needs: tuple[int, ...]
    """Distances back in frames, ascending; none: decoding can start here."""
    discardable: bool
    """Whether no other frame needs this one."""
    temporal: int
    """Its temporal layer, 0 the base."""


_ALONE: Final = Dependence((), discardable=False, temporal=0)


class Dependencies:
    """Those of one track. Every frame has to be told."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[int, int] = {}
        """By temporal layer: which frame of it was the last that others may need."""
        self._plain = 0
        """Pictures of the base since one that was not."""

    def of(self, frame: MediaFrame) -> Dependence:
        """Return what the next frame needs."""
        self._count += 1
        if frame.key_frame:
            if frame.is_video:
                self._last = {0: self._count}
            return _ALONE
        layer, discardable = self._layer(frame)
        # A frame can name so many: the highest layers count as one.
        temporal = min(layer, MAX_NEEDS - 1)
        needs = sorted(
            min(self._count - last, MAX_NEED) for below, last in self._last.items() if below <= temporal
        )
        if not discardable:
            self._last[temporal] = self._count
        return Dependence(tuple(dict.fromkeys(needs)) or (1,), discardable, temporal)

    def _layer(self, frame: MediaFrame) -> Layer:
        """Return a picture's layer; to take one for the base is always safe, and costs nothing."""
        if self._plain > _PLAIN and self._count % _GLANCE:
            return BASE
        layer = layer_of(frame.format, frame.payload)
        self._plain = self._plain + 1 if layer == BASE else 0
        return layer
