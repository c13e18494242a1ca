"""What those who take a track would have its source send: the least of it goes upstream. Pure.

A wish lapses unless it is said again: whoever is gone holds nobody down. Times are seconds of one clock.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RateWishes"]

_MAX_ASKERS: Final = 1_000


class RateWishes:
    """The rates that were asked of one track's source, in kilobits a second, by who asked."""

    def __init__(self, *, lapse: float = 5.0, repeat: float = 1.0) -> None:
        """Wishes hold for `lapse` seconds; the same is said upstream every `repeat` seconds at most."""
        self._lapse = lapse
        self._repeat = repeat
        self._wishes: dict[object, tuple[float, int]] = {}
        self._said: tuple[float, int] | None = None

    def ask(self, now: float, who: object, kbps: int) -> int | None:
        """Take a wish; return what to say upstream now, None: nothing."""
        if who in self._wishes or len(self._wishes) < _MAX_ASKERS:
            self._wishes[who] = (now, kbps)
        return self._to_say(now)

    def forget(self, now: float, who: object) -> int | None:
        """Forget the wish of somebody who takes the track no more; return what to say upstream now."""
        if self._wishes.pop(who, None) is None:
            return None
        return self._to_say(now)

    def least(self, now: float) -> int | None:
        """Return the least of what is wished; None: nobody wishes for anything."""
        for who, (at, _) in list(self._wishes.items()):
            if now - at > self._lapse:
                del self._wishes[who]
        return min((kbps for _, kbps in self._wishes.values()), default=None)

    def _to_say(self, now: float) -> int | None:
        least = self.least(now)
        if least is None or (self._said and self._said[1] == least and now < self._said[0] + self._repeat):
            return None
        self._said = (now, least)
        return least
