"""Virtual time and a virtual network for asyncio code: minutes on a bad path pass as fast as they compute.

    def test_something() -> None:
        with VirtualLoop.running() as loop:
            path = loop.network.impair(port, there=Profile(delay=0.05), seed=1)
            loop.run_until_complete(story())

When every task waits, the clock jumps to the next timer. UDP sockets only serve to have addresses: what is
sent on them goes through the loop's network, over the path to the port that it is for, or without delay if
there is none; the pumps under the bridges' QUIC (bridges.quic.pump) are exchanged for such. What else needs
real time or other threads (TCP, subprocesses, name resolution) does not belong here. When nothing at all is
left to happen, that is an error and not a hang.
"""

from __future__ import annotations

import asyncio
import ipaddress
import selectors
import socket
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from unittest.mock import patch

from tests.impairment.core import Impairment, Profile
from tests.impairment.deliveries import Deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridges.quic.pump import Receiver
    from tests.impairment.core import Rebinding

__all__ = ["Network", "Path", "StuckError", "VirtualLoop"]

Address = tuple[Any, ...]
"""Host and port; for IPv6 with more behind them."""

_REAL_SECONDS: Final = 5.0
_TURN: Final = 2e-9
"""Virtual seconds that each turn of the loop takes."""
_BEGINNING: Final = 1000.0
_EXTERNAL: Final = "198.51.100."
"""Where NATs are (RFC 5737): no socket has such an address."""


class StuckError(RuntimeError):
    """Every task waits for something that nobody will do."""


class Path:
    """What lies between all clients and the server at one port."""

    def __init__(
        self, loop: VirtualLoop, there: Impairment, back: Impairment, rebinding: Rebinding | None
    ) -> None:
        self.there: Final = there
        """Towards the server."""
        self.back: Final = back
        """Towards the clients."""
        self._rebinding = rebinding
        self._loop = loop
        self._begin = loop.time()
        self._forced = 0

    @property
    def nat(self) -> str:
        """The host that all clients seem to be now."""
        own = 0 if self._rebinding is None else self._rebinding.binding(self._loop.time() - self._begin)
        return f"{_EXTERNAL}{(own + self._forced) % 256}"

    def rebind(self) -> None:
        """Let the NAT forget: clients come from elsewhere, and what is sent to where they were is lost."""
        self._forced += 1

    def cut(self, length: float, *, there: bool = True, back: bool = True) -> None:
        """Let nothing pass for `length` seconds from now on, in the given directions."""
        for path in (self.there,) * there + (self.back,) * back:
            path.cut(self._loop.time(), length)


class Network:
    """Every UDP socket of the loop, and the paths between them."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.unreachable = 0
        """Datagrams to where nobody listens, or to where a NAT has forgotten."""
        self._loop = loop
        self._sockets: dict[int, _Pump] = {}
        self._paths: dict[int, Path] = {}
        self._deliveries = Deliveries(loop, limit=1_000_000)

    def impair(
        self,
        port: int,
        *,
        there: Profile,
        back: Profile | None = None,
        seed: int | str = 0,
        rebinding: Rebinding | None = None,
    ) -> Path:
        """Put a path in front of the server at `port`; `back` is `there` if None, with chances of its own."""
        now = self._loop.time()
        self._paths[port] = Path(
            self._loop,
            Impairment(there, f"{seed} there", begin=now),
            Impairment(there if back is None else back, f"{seed} back", begin=now),
            rebinding,
        )
        return self._paths[port]

    def add(self, pump: _Pump) -> None:
        """Take a socket."""
        self._sockets[pump.port] = pump

    def remove(self, pump: _Pump) -> None:
        """Forget a socket."""
        if self._sockets.get(pump.port) is pump:
            del self._sockets[pump.port]

    def send(self, sender: _Pump, data: bytes, to: Address) -> None:
        """Carry a datagram."""
        now, source = self._loop.time(), sender.address
        arrivals: tuple[float, ...] = (now,)
        back, there = self._paths.get(sender.port), self._paths.get(to[1])
        if back is not None:
            arrivals = back.back.send(now, len(data)).arrivals
        elif there is not None:
            arrivals = there.there.send(now, len(data)).arrivals
            source = (there.nat, *source[1:])
        for at in arrivals:
            self._deliveries.put(at, partial(self._deliver, data, source, to, back))

    def _deliver(self, data: bytes, source: Address, to: Address, back: Path | None) -> None:
        receiver = self._sockets.get(to[1])
        forgotten = back is not None and to[0] != back.nat
        if receiver is None or forgotten or not receiver.hears(source):
            self.unreachable += 1
        else:
            receiver.take(data, source)


class _Pump:
    """A UDP socket on the network. The real one is only held, so that nobody else has its port."""

    def __init__(self, udp: socket.socket, receiver: Receiver, **options: object) -> None:
        del options  # what they are about, no kernel does here
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.address: Final[Address] = udp.getsockname()
        self.port: Final[int] = self.address[1]
        try:
            self._peer: Address | None = udp.getpeername()
        except OSError:
            self._peer = None
        self._loop = loop
        self._receiver = receiver
        self._socket = udp
        self._closed = False
        loop.network.add(self)

    def send(self, datagrams: Sequence[bytes], address: Address | None = None) -> None:
        """Give datagrams to the network."""
        to = self._peer if address is None else address
        assert to is not None
        if not self._closed:
            for data in datagrams:
                self._loop.network.send(self, data, to)

    def hears(self, source: Address) -> bool:
        """Whether a datagram from there would be let in: a connected socket has one peer."""
        return self._peer is None or self._peer[1] == source[1]

    def take(self, data: bytes, source: Address) -> None:
        """Hand over what has arrived."""
        self._receiver.datagram_received(data, source, self._loop.time())

    def close(self) -> None:
        """Leave the network."""
        if not self._closed:
            self._closed = True
            self._loop.network.remove(self)
            self._socket.close()


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but the next timer, to which the clock jumps."""

    jump: Any

    def select(self, timeout: float | None = None) -> Any:
        # Whoever is called in time, finds that it is too early by less than a float can say, and asks again
        # (aioquic's pacer does), would be called for ever if no time passed.
        self.jump(_TURN)
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # Only what another thread does can go on from here.
            if not (ready := super().select(_REAL_SECONDS)):
                raise StuckError("no task can go on, and no timer is set")
            return ready
        self.jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._now = _BEGINNING
        selector = _Selector()
        selector.jump = self._jump
        super().__init__(selector)
        self.network: Final = Network(self)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[VirtualLoop]:
        """Lend a loop; what still runs on it at the end is cancelled."""
        with patch("bridges.quic.pump.Pump", _Pump), asyncio.Runner(loop_factory=cls) as runner:
            yield cast("VirtualLoop", runner.get_loop())

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        """Return the address that `host` already is."""
        ipaddress.ip_address(host)
        return socket.getaddrinfo(host, port, **{k: v for k, v in hints.items() if k in {"family", "type"}})
