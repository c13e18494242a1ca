"""The search for a path's MTU on one connection: probes sent when they are due, sizes used once they pass.

Owns no timer: an established connection sends something every few hundred milliseconds, and asks then.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from bridges.quic.inside import probes, reads
from bridges.quic.path_mtu import Fate, PathMtu

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import NetworkAddress, QuicConnection

__all__ = ["Probing", "udp_payload"]

_IPV4_UDP: Final = 20 + 8
_IPV6_UDP: Final = 40 + 8


class Probing:
    """Finds out how large the datagrams to `host`, an address, may be, and lets the connection use it.

    `mtu` is the most that is looked for, in bytes of an IP packet. `clock` tells the time in seconds, `put`
    sends a datagram, `resized` is called when datagrams may be larger than before, or have to be smaller.
    """

    def __init__(
        self,
        quic: QuicConnection,
        host: str,
        mtu: int,
        *,
        clock: Callable[[], float],
        put: Callable[[list[tuple[bytes, NetworkAddress]]], None],
        resized: Callable[[], None],
    ) -> None:
        self._quic = quic
        self._clock = clock
        self._put = put
        self._resized = resized
        self._path = PathMtu(probes.datagram_size(quic), udp_payload(host, mtu))
        self._size = self._path.size
        self._watches = probes.watch(quic, self._path)

    def step(self, now: float) -> None:
        """Do what is due; before the connection sends, as it sends something right behind a probe."""
        path = self._path
        if path.size != self._size:
            self._size = path.size
            probes.resize(self._quic, path.size)
            self._resized()
        if now < path.due or not self._watches or reads.termination(self._quic) is not None:
            return
        size = path.probe(now)
        if size is not None:
            self._put(probes.send_probe(self._quic, size, now, self._settled))
            self._quic.send_ping(0)  # nobody waits for it: its acknowledgement shows that the probe is lost

    def _settled(self, fate: Fate) -> None:
        self._path.settled(self._clock(), fate)


def udp_payload(host: str, mtu: int) -> int:
    """Return how many bytes of UDP payload an IP packet of `mtu` bytes to that address carries."""
    address = ipaddress.ip_address(host.partition("%")[0])
    is_v4 = address.version == 4 or address.ipv4_mapped is not None  # noqa: PLR2004 - IP's versions
    return mtu - (_IPV4_UDP if is_v4 else _IPV6_UDP)
