"""Back-pressure of one connection: what its tracks are told when more is offered than the path takes.

A thin shell over bridges.media.own.pressure, for both wires. Knows tracks by numbers, and of each whom to ask
for less and whom to tell which layers may pass; how the way out stands it asks when it is time to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.media.own.pressure import Pressure, Tuning

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.media.own.pressure import Strain
    from bridges.media.own.sender import Outcome
    from bridges.media.pieces import Piece

__all__ = ["Backpressure"]

_BYTES: Final = 125.0
"""A second, that a kilobit a second is."""


class _Hands(NamedTuple):
    slow: Callable[[int], None]
    limit: Callable[[int | None], None]


class Backpressure:
    """Of one connection. Sources are asked for no less than `least_bitrate`, in kilobits a second."""

    def __init__(self, *, least_bitrate: int) -> None:
        self.copies = 0
        """So often sound is to be carried again at least."""
        self._pressure = Pressure(Tuning(least=least_bitrate * _BYTES))
        self._tracks: dict[int, _Hands] = {}

    def open(
        self,
        number: int,
        *,
        sound: bool,
        slow: Callable[[int], None],
        limit: Callable[[int | None], None],
    ) -> None:
        """Begin a track that goes out.

        `slow` asks its source to send so many kilobits a second from now on; `limit` lets pass no temporal
        layer above that, None: all.
        """
        self._pressure.open(number, sound=sound)
        self._tracks[number] = _Hands(slow, limit)

    def end(self, number: int) -> None:
        """End a track; its source is held down for it no more."""
        hands, released = self._tracks.pop(number, None), self._pressure.close(number)
        if hands is not None and released is not None:
            hands.slow(released)

    def offered(
        self,
        now: float,
        number: int,
        piece: Piece,
        *,
        size: int,
        outcome: Outcome,
        strain: Callable[[], Strain],
    ) -> None:
        """Take note of a frame of an open track, and of what became of it; do what is to be done about it.

        `strain` says how the way out stands. Raises KeyError.
        """
        pressure = self._pressure
        pressure.offered(now, number, size, outcome, key=not piece.needs, temporal=piece.temporal)
        if not pressure.looks(now):
            return
        decision = pressure.look(now, strain())
        self.copies = pressure.sound_copies(now)
        for each, highest in decision.layers.items():
            self._tracks[each].limit(highest)
        for each, kbps in decision.ask.items():
            self._tracks[each].slow(kbps)

    def close(self) -> None:
        """Ask nobody for anything any more."""
        for number in list(self._tracks):
            self.end(number)
