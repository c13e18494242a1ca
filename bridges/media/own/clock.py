"""When to tell the peer what our clock shows: while media comes, not too often. Pure; time is an argument."""

from __future__ import annotations

import math
from typing import Final

from bridges.wire.own_media.clock import encode_clock

__all__ = ["ClockTeller"]

_INTERVAL: Final = 0.025
"""Seconds between two, at least,"""
_DATAGRAMS: Final = 12
"""and datagrams that come: each is acknowledged, and should cost little of what it is about."""


class ClockTeller:
    """Tells what our clock shows, if the peer wants to know: seconds of the clock whose time is given."""

    __slots__ = ("_heard", "_told_at", "_wanted")

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._told_at = -math.inf
        self._heard = 0

    def heard(self) -> None:
        """Take note that something has come which the peer measures its path by."""
        self._heard += 1

    def head(self, now: float) -> bytes | None:
        """Return the datagram to be sent now; None: it is not time. Say told() once it is on its way."""
        if not self._wanted or self._heard < _DATAGRAMS or now - self._told_at < _INTERVAL:
            return None
        return encode_clock(now)

    def told(self, now: float) -> None:
        """Take note that what head() returned is on its way."""
        self._heard = 0
        self._told_at = now
