"""One end of a QUIC connection, driven by virtual time, and the path that joins two of them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from bridges.quic import Certificate
from bridges.quic.inside.recovery import note_lateness

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.events import QuicEvent

    from bench._virtual.world import World
    from tests.impairment.core import Impairment

__all__ = ["Peer", "Stalls", "connect"]

_ADDRESS: Final = ("192.0.2.1", 4433)
_MAX_DATAGRAM_FRAME: Final = 65536
_LOOK: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """A process that has something else to do: for `length` seconds at every multiple of `every`."""

    length: float
    every: float

    def over_at(self, now: float) -> float:
        """Return when the process comes to what happens now."""
        begun = now - now % self.every
        return max(now, begun + self.length)


class Peer:
    """A connection that is advanced whenever something arrives or falls due."""

    def __init__(self, world: World, quic: QuicConnection, path: Impairment) -> None:
        self.quic: Final = quic
        self.other: Peer
        """Who receives what is sent; set by connect()."""
        self.on_event: Callable[[QuicEvent], None] = _ignore
        """Told of what the connection has to say."""
        self.on_turn: Callable[[], None] = _nothing
        """Called before every transmission: a source that always has more to send writes it here."""
        self.on_queued: Callable[[float, float], None] | None = None
        """Told the time, and how long a datagram waited in the bottleneck; for every one that passed it."""
        self.stalls: Stalls | None = None
        """What keeps this end from its work."""
        self.came = 0.0
        """When what is being delivered came."""
        self.sent_bytes = 0
        """Bytes of UDP payload given to the path."""
        self.received_bytes = 0
        """Bytes of UDP payload that came from the path."""
        self._world = world
        self._path = path
        self._timer_at: float | None = None

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call as soon as this end's handshake is complete: nobody is sent media who has not asked for it."""
        if self.quic._handshake_complete:  # noqa: SLF001 - there is no public way to it
            call()
        else:
            self._world.at(self._world.now + _LOOK, lambda: self.when_ready(call))

    def when_free(self, call: Callable[[], None]) -> None:
        """Call as soon as this end's process comes to it."""
        at = self._free_at()
        if at > self._world.now:
            self._world.at(at, call)
        else:
            call()

    def advance(self) -> None:
        """Act upon what the connection says, then send what it wants sent."""
        at = self._free_at()
        if at > self._world.now:
            self._world.at(at, self.advance)
            return
        while (event := self.quic.next_event()) is not None:
            self.on_event(event)
        self.on_turn()
        for data, _ in self.quic.datagrams_to_send(now=self._world.now):
            self._send(data)
        self._arm()

    def _send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        fate = self._path.send(self._world.now, len(data))
        if fate.arrivals and self.on_queued is not None:
            self.on_queued(self._world.now, fate.waited)
        for at in fate.arrivals:
            self._arrive(data, at)

    def _arrive(self, data: bytes, at: float) -> None:
        self._world.at(at, lambda: self.other.receive(data, at))

    def receive(self, data: bytes, came: float) -> None:
        """Take a datagram that `came` from the path at that time; the kernel tells who is late to it."""
        at = self._free_at()
        if at > self._world.now:
            self._world.at(at, lambda: self.receive(data, came))
            return
        self.came = came
        self.received_bytes += len(data)
        self.quic.receive_datagram(data, _ADDRESS, now=came)
        self.advance()

    def _free_at(self) -> float:
        now = self._world.now
        return now if self.stalls is None else self.stalls.over_at(now)

    def _arm(self) -> None:
        timer_at = self.quic.get_timer()
        if timer_at == self._timer_at:
            return
        self._timer_at = timer_at
        if timer_at is not None:
            self._world.wake_at(timer_at, lambda: self._due(timer_at))

    def _due(self, timer_at: float) -> None:
        at = self._free_at()
        if at > self._world.now:
            self._world.at(at, lambda: self._due(timer_at))
        elif timer_at == self._timer_at:
            self._timer_at = None
            note_lateness(self.quic, self._world.now - timer_at)
            self.quic.handle_timer(now=self._world.now)
            self.advance()


def connect(
    world: World,
    there: Impairment,
    back: Impairment,
    *,
    congestion: str = "reno",
    fit: Callable[[QuicConnection], None] = lambda _: None,
) -> tuple[Peer, Peer]:
    """Return sender and receiver, joined by two paths; the handshake begins now.

    `congestion` names a controller in aioquic's registry, `fit` changes each end before it is used.
    """
    client = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True,
            alpn_protocols=["bench"],
            congestion_control_algorithm=congestion,
            max_datagram_frame_size=_MAX_DATAGRAM_FRAME,
            verify_mode=ssl.CERT_NONE,
            server_name="bench",
        )
    )
    certificate = _certificate()
    server = QuicConnection(
        configuration=QuicConfiguration(
            is_client=False,
            alpn_protocols=["bench"],
            certificate=certificate.certificate,
            congestion_control_algorithm=congestion,
            max_datagram_frame_size=_MAX_DATAGRAM_FRAME,
            private_key=certificate.private_key,
        ),
        original_destination_connection_id=client.original_destination_connection_id,
    )
    fit(client)
    fit(server)
    sender, receiver = Peer(world, client, there), Peer(world, server, back)
    sender.other, receiver.other = receiver, sender
    client.connect(_ADDRESS, now=world.now)
    sender.advance()
    return sender, receiver


@cache
def _certificate() -> Certificate:
    return Certificate.self_signed("bench")


def _ignore(event: QuicEvent) -> None:
    """Keep nothing of it."""
    del event


def _nothing() -> None:
    """Have nothing to write."""
