"""Who may begin a handshake: what becomes of a datagram that would make a new connection. Pure.

A sender's address is worth nothing until the sender has answered to it, so nothing that a stranger sends may
cost the address that he wrote down:

    unproven   few handshakes are under way, and few came from this address lately   → begin it
               otherwise, or always if the operator wants it so                      → have it proven
    proven     few came from this address lately                                     → begin it
               otherwise                                                             → no answer

What is unproven and what is proven is counted apart: whoever pretends to be a peer has that peer prove its
address, which costs it a round trip, and nothing else. Sockets, tokens and connections are not known here.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from enum import Enum, auto
from typing import Final

__all__ = ["Buckets", "HandshakeGate", "Verdict", "origin_of"]

_V6_PREFIX: Final = 64
"""Bits of an IPv6 address that one site has at least: whoever has one address has the others, too."""
_MAX_ORIGINS: Final = 4096


class Verdict(Enum):
    """What becomes of a handshake."""

    BEGIN = auto()
    PROVE = auto()
    """Answer with a Retry: the peer shows that it receives at its address (RFC 9000 section 8.1.2)."""
    IGNORE = auto()


def origin_of(host: str) -> str:
    """Return what counts as one sender: an IPv4 address, or the first 64 bits of an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _V6_PREFIX), strict=False))
    return host


class Buckets:
    """A token bucket for each origin; beyond `max_origins` the ones unused for longest are forgotten.

    A bucket holds `burst` tokens and gains `rate` a second.
    """

    def __init__(self, *, rate: float, burst: int, max_origins: int = _MAX_ORIGINS) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._max_origins = max_origins
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens, and when they were counted."""

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, origin: str, now: float) -> bool:
        """Take one token; False if there is none."""
        level, counted_at = self._levels.pop(origin, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - counted_at) * self._rate)
        taken = level >= 1.0
        self._levels[origin] = (level - 1.0 if taken else level, now)
        if len(self._levels) > self._max_origins:
            self._levels.popitem(last=False)
        return taken


class HandshakeGate:
    """Decides about handshakes.

    `always_prove`: every peer proves its address. `prove_above`: handshakes of unproven peers that may be
    under way at once. `rate` and `burst`: handshakes of one origin a second, and at once.
    """

    def __init__(self, *, always_prove: bool, prove_above: int, rate: float, burst: int) -> None:
        self._always_prove = always_prove
        self._prove_above = prove_above
        self._unproven = Buckets(rate=rate, burst=burst)
        self._proven = Buckets(rate=rate, burst=burst)

    def unproven(self, host: str, *, under_way: int, now: float) -> Verdict:
        """Decide about a peer that says to be at `host`; `under_way` such handshakes are not done yet."""
        if self._always_prove or under_way >= self._prove_above:
            return Verdict.PROVE
        return Verdict.BEGIN if self._unproven.take(origin_of(host), now) else Verdict.PROVE

    def proven(self, host: str, *, now: float) -> Verdict:
        """Decide about a peer that has shown that it is at `host`."""
        return Verdict.BEGIN if self._proven.take(origin_of(host), now) else Verdict.IGNORE
