"""Which temporal layers of a track enter when less is wanted than comes. Pure; times are one clock's seconds.

A sender that cannot change its rate may still send layers: no picture needs one of a higher layer, so the
upper ones can be left out. Less is let in at once; more from a key frame on, as what was left out may be
needed by what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.rtp.formats.port import Encoded

__all__ = ["Thinner"]

_PERIOD: Final = 0.5  # seconds for which bytes are counted together
_LAPSE: Final = 5.0  # seconds that a wish holds: whoever wants less says it again and again
_LAYERS: Final = 8


class Thinner:
    """The layers of one track."""

    def __init__(self) -> None:
        self._limit: tuple[float, int] | None = None
        self._top = _LAYERS - 1
        self._began = float("-inf")
        self._counting = [0] * _LAYERS
        self._rates = [0.0] * _LAYERS
        self.left_out = 0
        """Pictures left out."""

    def limit(self, now: float, bitrate: int) -> None:
        """Take note that at most `bitrate` bits a second are wanted, for a while."""
        self._limit = (now, bitrate)

    def wanted(self, now: float) -> int | None:
        """Return how many bits a second are wanted at most; None: any number."""
        if self._limit is not None and now - self._limit[0] > _LAPSE:
            self._limit = None
        return None if self._limit is None else self._limit[1]

    def passes(self, now: float, frame: Encoded) -> bool:
        """Whether a frame that has come enters; those of the base layer always do."""
        layer = min(frame.temporal, _LAYERS - 1)
        self._count(now, layer, 8 * len(frame.payload))
        fits = self._fits(self.wanted(now))
        if fits < self._top or frame.key_frame:
            self._top = fits
        if layer <= self._top:
            return True
        self.left_out += 1
        return False

    def _count(self, now: float, layer: int, bits: int) -> None:
        passed = now - self._began
        if passed >= _PERIOD:
            # After a pause longer than that nothing is known of the rate.
            known = passed < 2 * _PERIOD
            self._rates = [count / passed if known else 0.0 for count in self._counting]
            self._counting = [0] * _LAYERS
            self._began = now
        self._counting[layer] += bits

    def _fits(self, limit: int | None) -> int:
        """Return the highest layer up to which all together are within the limit."""
        if limit is None:
            return _LAYERS - 1
        total = 0.0
        for layer, rate in enumerate(self._rates):
            total += rate
            if total > limit:
                return max(0, layer - 1)
        return _LAYERS - 1
