"""How large a datagram the path takes: which size to try, what an answer means, when to fall back. Pure.

Path MTU discovery by probes of its own (RFC 8899, RFC 9000 section 14.3): nothing that routers say is
believed. Sizes are bytes of UDP payload, times seconds. Who sends probes and hears of their fate is told by
no more than calls; sockets and connections are not known here.

    resting    no probe is due before `due`
    due        the next size may be tried
    under way  one probe is out; its fate decides

The largest size is tried first, as most paths take it. Where it does not pass, the interval between what
passes and what does not is halved until it is not worth a probe. What has been found is used until large
packets are lost one after the other while small ones arrive (section 4.3 of RFC 8899).
"""

from __future__ import annotations

import enum
import math
from typing import Final

__all__ = ["Fate", "PathMtu"]

_TRIES: Final = 3
"""Probes of one size that have to be lost for it not to pass (MAX_PROBES, RFC 8899 section 5.1.2)."""
_STEP: Final = 16
"""Bytes: a gain below that is worth no probe."""
_RAISE_AFTER: Final = 600.0
"""Seconds after which a path may have become another (PMTU_RAISE_TIMER)."""
_AGAIN_AFTER: Final = 1.0
"""Seconds after a probe of whose fate nothing can be said, and after a first black hole."""
_HOLE_PACKETS: Final = 6
_HOLE_TIME: Final = 0.05
"""So many large packets in a row, sent over so many seconds, are lost in a black hole, not in a burst."""
_SILENCE: Final = 1.0
"""Seconds in which nothing arrives at all: perhaps because nothing that large does."""
_CALM: Final = 60.0
"""Seconds after which a black hole is no consequence of the one before."""


class Fate(enum.Enum):
    """What became of a probe."""

    ARRIVED = enum.auto()
    LOST = enum.auto()
    """Something that was sent after it has arrived."""
    UNKNOWN = enum.auto()
    """Nothing arrives at all, or not yet."""


class PathMtu:
    """The search on one path. `base` passes (RFC 9000 section 14), `ceiling` is the most that is tried."""

    def __init__(self, base: int, ceiling: int) -> None:
        self.base: Final = base
        self.size = base
        """What may be sent now."""
        self.due = 0.0 if ceiling - base >= _STEP else math.inf
        """When the next probe may go; infinite while one is under way, or if there is nothing to find."""
        self._ceiling = ceiling
        self._refused = ceiling + 1
        """The least size of which is believed that it does not pass."""
        self._favourite: int | None = ceiling
        """To be tried before all others."""
        self._trying: int | None = None
        self._tries = 0
        self._arrived = -math.inf
        """When the last large packet was sent that has arrived."""
        self._lost = 0
        """Large packets sent since then that were lost."""
        self._lost_since = 0.0
        self._holes = 0
        self._hole_at = -math.inf

    # --- probes -----------------------------------------------------------------------------------

    def probe(self, now: float) -> int | None:
        """Return the size of a probe that is to be sent now; its fate is due next. None: not now."""
        if now < self.due:
            return None
        self._trying = self._favourite or (self.size + self._refused) // 2
        self.due = math.inf
        return self._trying

    def settled(self, now: float, fate: Fate) -> None:
        """Take note of what became of the probe that was under way."""
        tried, self._trying = self._trying, None
        assert tried is not None
        if fate is Fate.UNKNOWN:
            self.due = now + _AGAIN_AFTER
            return
        self.due = now
        if fate is Fate.LOST:
            self._tries += 1
            if self._tries < _TRIES:
                return
            self._refused = min(self._refused, tried)
        else:
            self.size = max(self.size, tried)
        self._tries, self._favourite = 0, None
        if self.size == self._ceiling:
            self.due = math.inf
        elif self._refused - self.size < _STEP:
            self.due = now + _RAISE_AFTER
            self._refused, self._favourite = self._ceiling + 1, self._ceiling

    # --- what is sent by the way ------------------------------------------------------------------

    def acked(self, sent_at: float) -> None:
        """Take note that a packet larger than the base has arrived."""
        self._lost = 0
        self._arrived = max(self._arrived, sent_at)

    def lost(self, now: float, sent_at: float) -> None:
        """Take note that one was lost, though something sent after it has arrived."""
        if self.size == self.base or sent_at < self._arrived:
            return
        if not self._lost:
            self._lost_since = sent_at
        self._lost += 1
        if self._lost >= _HOLE_PACKETS and sent_at - self._lost_since >= _HOLE_TIME:
            self._fall_back(now)

    def silent(self, now: float, seconds: float) -> None:
        """Take note that nothing has arrived for so long, large or not."""
        if self.size > self.base and seconds >= _SILENCE:
            self._fall_back(now)

    def _fall_back(self, now: float) -> None:
        """Use what surely passes, and see later whether what was used before does so after all."""
        if now - self._hole_at > _CALM:
            self._holes = 0
        self._holes += 1
        self._hole_at = now
        self._lost = self._tries = 0
        self._favourite, self.size = self.size, self.base
        if self._trying is None:
            self.due = now + min(_AGAIN_AFTER * 2.0 ** (self._holes - 1), _RAISE_AFTER)
