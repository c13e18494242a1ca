"""How often to knock at a path from which nothing comes back."""

from __future__ import annotations

from typing import Final

__all__ = ["Silence"]

_PATIENT: Final = 3.0
"""Seconds for which a silent path is probed at an even pace; after that ever more rarely."""
_SHORTEST: Final = 0.008
_SHARE: Final = 5
"""Probes in the time of one probe timeout."""
_MOST_DOUBLINGS: Final = 6


class Silence:
    """Probe timeouts without an answer.

    RFC 9002 section 6.2.1 asks for the timeout to be doubled each time. That costs media a second of every
    two seconds' hole, so this waits with it: the path was in use a moment ago, and a probe is a few packets
    that carry what would have been sent anyway.
    """

    __slots__ = ("_began", "_doublings", "_last", "timeouts")

    def __init__(self) -> None:
        self.timeouts = 0
        """Probe timeouts since something was acknowledged."""
        self._began = self._last = 0.0
        self._doublings = 0

    def timed_out(self, now: float) -> None:
        """Take note of a probe timeout."""
        if not self.timeouts:
            self._began = now
        elif now - self._began > _PATIENT:
            self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        self.timeouts += 1
        self._last = now

    def lasts(self, now: float) -> float:
        """Return for how long nothing was acknowledged since the first probe timeout."""
        return now - self._began if self.timeouts else 0.0

    def broken(self) -> None:
        """Take note of an acknowledgement."""
        self.timeouts = self._doublings = 0

    def probe_at(self, sent_at: float, probe_timeout: float) -> float:
        """Return when to probe. `sent_at`: the last packet; `probe_timeout`: RFC 9002's, not backed off."""
        if not self.timeouts:
            return sent_at + probe_timeout
        if self._doublings:
            interval = probe_timeout * 2.0**self._doublings
        else:
            interval = max(probe_timeout / _SHARE, _SHORTEST)
        return self._last + interval
