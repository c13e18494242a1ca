"""What is lost last: nothing comes behind it whose acknowledgement would tell. Pure; times are seconds.

A picture's last packet that is lost is noticed with the next packet that arrives, which may be sent only when
the next picture or sound is captured. Where a path loses, an empty packet goes after a short while instead
(as the probes of RFC 8985 section 7.2 do, but long before a round trip has passed).
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Tail"]

_WAIT: Final = 0.012
"""For what would be sent anyway."""
_SMALL: Final = 300
"""Bytes of a packet that is not worth a probe: sound, acknowledgements, the probe itself."""
_REMEMBERED: Final = 10.0
"""Without a loss for so long, a path is taken to lose nothing."""


class Tail:
    """The end of what was sent on one connection."""

    __slots__ = ("_losing_until", "due")

    def __init__(self) -> None:
        self.due = math.inf
        """When to probe; infinite: there is no need to."""
        self._losing_until = -math.inf

    def sent(self, now: float, size: int) -> None:
        """Take note of a packet that is to be acknowledged."""
        self.due = now + _WAIT if size > _SMALL and now < self._losing_until else math.inf

    def lost(self, now: float) -> None:
        """Take note that the path has lost something."""
        self._losing_until = now + _REMEMBERED

    def postpone(self, until: float = math.inf) -> None:
        """Take note that nothing is to be probed now: what waits cannot be sent sooner, or a probe is out."""
        self.due = until
