"""A bad network path for real datagrams: a UDP relay in user space between clients and one server.

    async with Relay.running(("127.0.0.1", port), there=Profile(delay=0.05), seed=1) as relay:
        ...                                     # dial relay.port instead of the server's port

Each client address gets a socket of its own towards the server, as behind a NAT; `rebind` gives all of them
new ones, and what still comes to the old ones is lost. All clients share the path and so its bottleneck. What
becomes of a datagram is decided by core.py; here are the sockets, the clock and the bounds: at most
`max_clients` (the one that was silent longest is forgotten) and `max_waiting` datagrams under way (further
ones are dropped). Runs on any asyncio loop; a delay may last up to a millisecond longer than asked for.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.impairment.core import Impairment, Profile
from tests.impairment.deliveries import Deliveries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.impairment.core import Rebinding

__all__ = ["Address", "Relay"]

Address = tuple[str, int]

_MAX_DATAGRAM: Final = 65_535
_READS_AT_ONCE: Final = 64
_BUFFER_BYTES: Final = 4 << 20


class Relay:
    """The path of all clients to one server. Made by `running`."""

    def __init__(
        self,
        server: Address,
        *,
        there: Impairment,
        back: Impairment,
        listening: socket.socket,
        max_clients: int,
        max_waiting: int,
    ) -> None:
        self.there: Final = there
        """Towards the server."""
        self.back: Final = back
        """Towards the clients."""
        self.rebound = 0
        """How often clients have got a new address towards the server."""
        self._server = server
        self._listening = listening
        self._max_clients = max_clients
        self._refused = 0
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._clients: dict[Address, socket.socket] = {}
        self._deliveries = Deliveries(self._loop, limit=max_waiting)
        self._rebinding: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening, self._from_clients)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        server: Address,
        *,
        there: Profile = Profile(),  # noqa: B008 - immutable
        back: Profile | None = None,
        seed: int = 0,
        rebinding: Rebinding | None = None,
        listen: Address = ("127.0.0.1", 0),
        max_clients: int = 256,
        max_waiting: int = 65_536,
    ) -> AsyncIterator[Relay]:
        """Relay until the end of the block. `back` is `there` if None, with chances of its own.

        Raises OSError when the address cannot be bound.
        """
        now = asyncio.get_running_loop().time()
        with _udp_socket(listen) as listening:
            listening.bind(listen)
            relay = cls(
                server,
                there=Impairment(there, f"{seed} there", begin=now),
                back=Impairment(there if back is None else back, f"{seed} back", begin=now),
                listening=listening,
                max_clients=max_clients,
                max_waiting=max_waiting,
            )
            if rebinding is not None:
                relay._rebind_at_times(rebinding)
            try:
                yield relay
            finally:
                relay._close()

    @property
    def port(self) -> int:
        """Where clients send to."""
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def overflowed(self) -> int:
        """Datagrams dropped because too many were under way, or a socket did not take them."""
        return self._deliveries.dropped + self._refused

    @property
    def clients(self) -> int:
        """Client addresses that are known now."""
        return len(self._clients)

    def rebind(self) -> None:
        """Let the NAT forget: every client comes from a new port, and the old ones are deaf."""
        for client in list(self._clients):
            self._forget(client)
        self.rebound += 1

    def cut(self, length: float, *, there: bool = True, back: bool = True) -> None:
        """Let nothing pass for `length` seconds from now on, in the given directions."""
        for path in (self.there,) * there + (self.back,) * back:
            path.cut(self._loop.time(), length)

    # --- datagrams in ---------------------------------------------------------------------------

    def _from_clients(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data, client = self._listening.recvfrom(_MAX_DATAGRAM)
            except OSError:  # nothing more, or an ICMP message about a client that is gone
                return
            self._send(self.there, len(data), partial(self._to_server, data, client))

    def _from_server(self, client: Address, upstream: socket.socket) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = upstream.recv(_MAX_DATAGRAM)
            except OSError:  # as above, about the server
                return
            self._send(self.back, len(data), partial(self._to_client, data, client))

    def _send(self, path: Impairment, size: int, deliver: Callable[[], None]) -> None:
        for at in path.send(self._loop.time(), size).arrivals:
            self._deliveries.put(at, deliver)

    # --- datagrams out --------------------------------------------------------------------------

    def _to_server(self, data: bytes, client: Address) -> None:
        upstream = self._clients.pop(client, None)
        if upstream is None:
            if len(self._clients) >= self._max_clients:
                self._forget(next(iter(self._clients)))
            upstream = _udp_socket(self._server)
            upstream.connect(self._server)
            self._loop.add_reader(upstream, self._from_server, client, upstream)
        self._clients[client] = upstream  # last: the one that spoke last
        try:
            upstream.send(data)
        except OSError:  # full, or nobody listens there
            self._refused += 1

    def _to_client(self, data: bytes, client: Address) -> None:
        try:
            self._listening.sendto(data, client)
        except OSError:
            self._refused += 1

    # --- clients --------------------------------------------------------------------------------

    def _rebind_at_times(self, rebinding: Rebinding) -> None:
        def rebind() -> None:
            self.rebind()
            self._rebind_at_times(rebinding)

        at = self._began + rebinding.next_change(self._loop.time() - self._began)
        self._rebinding = self._loop.call_at(at, rebind)

    def _forget(self, client: Address) -> None:
        upstream = self._clients.pop(client)
        self._loop.remove_reader(upstream)
        upstream.close()

    def _close(self) -> None:
        if self._rebinding is not None:
            self._rebinding.cancel()
        self._deliveries.close()
        for client in list(self._clients):
            self._forget(client)
        self._loop.remove_reader(self._listening)


def _udp_socket(peer: Address) -> socket.socket:
    """Return a non-blocking UDP socket of the address's family, with room for bursts."""
    udp = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        udp.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return udp
