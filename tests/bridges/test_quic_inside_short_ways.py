"""The short ways in and out do to a connection what the library's own ways do, byte for byte.

A connection is doubled when its handshake is done; one of the twins goes the short ways, the other the
library's. Whatever happens to them, they send the same and say the same.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.quic.inside.acks import acknowledge_rarely
from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.idle_streams import pass_over_idle_streams
from bridges.quic.inside.receiving import receive_shortly
from bridges.quic.inside.recovery import Recovery
from tests.bridges.test_quic_inside_recovery import CLIENT, SERVER, Source, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import QuicConnection

LARGEST = 1150
ELSEWHERE = ("192.0.2.3", 3)


_OF_THE_SPACE = (
    "ack_at",
    "discarded",
    "expected_packet_number",
    "largest_received_packet",
    "largest_received_time",
    "ack_eliciting_in_flight",
    "largest_acked_packet",
    "loss_time",
)
_OF_THE_CONNECTION = (
    "_close_at",
    "_ack_eliciting_sent_since_receipt",
    "_spin_bit",
    "_spin_highest_pn",
    "_state",
    "host_cid",
    "_close_pending",
    "_packet_number",
    "_pacing_at",
    "_probe_pending",
)


def doubled(quic: QuicConnection) -> QuicConnection:
    """Return a copy that shares keys, which cannot be copied, and what is not used after the handshake."""
    shared: list[Any] = [quic.tls, quic._configuration, quic._logger, *quic._crypto_buffers.values()]
    for pair in quic._cryptos.values():
        for context in (pair.send, pair.recv):
            shared += [context.aead, context.hp]
    return copy.deepcopy(quic, {id(each): each for each in shared})


class Twins:
    """One end of a connection, twice."""

    def __init__(self, quic: QuicConnection, peer: tuple[str, int]) -> None:
        self.short, self.plain = quic, doubled(quic)
        self.sources = Source([]), Source([])
        self.peer = peer
        for each, source in zip((self.short, self.plain), self.sources, strict=True):
            replace_datagrams(each, source)
        del self.plain.datagrams_to_send  # what replaces it
        receive_shortly(self.short)
        for each in (self.short, self.plain):
            acknowledge_rarely(each)
            pass_over_idle_streams(each)

    def both(self, call: Callable[[QuicConnection], Any]) -> Any:
        """Do the same to both; return what both have returned."""
        one, other = call(self.short), call(self.plain)
        assert one == other
        return one

    def offer(self, sizes: list[int]) -> None:
        for source in self.sources:
            source.waiting += [bytes((size % 256,)) * size for size in sizes]

    def send(self, now: float) -> list[bytes]:
        sent = self.both(lambda quic: quic.datagrams_to_send(now=now))
        self.check()
        return [data for data, _ in sent]

    def take(self, data: bytes, now: float, *, addr: tuple[str, int] | None = None) -> None:
        self.both(lambda quic: quic.receive_datagram(data, addr or self.peer, now=now))
        self.check()

    def tick(self, now: float) -> None:
        timer = self.both(lambda quic: quic.get_timer())
        if timer is not None and timer <= now:
            self.both(lambda quic: quic.handle_timer(now=now))
            self.check()

    def check(self) -> None:
        """Compare all that may have changed."""
        assert self.sources[0].waiting == self.sources[1].waiting
        assert self.sources[0].outcomes == self.sources[1].outcomes
        while self.both(lambda quic: quic.next_event()) is not None:
            pass
        self.both(lambda quic: quic.get_timer())
        self.both(state)


def state(quic: QuicConnection) -> list[Any]:
    """Return everything that the short ways have to do with."""
    space, recovery = quic._spaces[Epoch.ONE_RTT], quic._loss
    sent = [
        (number, replace(each, delivery_handlers=[]), len(each.delivery_handlers))
        for number, each in space.sent_packets.items()
    ]
    return [
        *(getattr(space, name) for name in _OF_THE_SPACE),
        *(getattr(quic, name) for name in _OF_THE_CONNECTION),
        list(space.ack_queue),
        sorted(space.received_packets._received),
        sent,
        [
            (path.addr, path.bytes_sent, path.bytes_received, path.is_validated)
            for path in quic._network_paths
        ],
        quic._cryptos[Epoch.ONE_RTT].key_phase,
        recovery.congestion_window,
        recovery.bytes_in_flight,
    ]


class Line:
    """Both ends, each twice, and what is on its way."""

    def __init__(self) -> None:
        wire = Wire(both=True)
        self.now = wire.now
        self.ends = Twins(wire.client, SERVER), Twins(wire.server, CLIENT)
        self.flying: tuple[list[bytes], list[bytes]] = ([], [])
        """To the client, to the server."""
        for end in self.ends:
            end.both(lambda quic: quic.send_ping(1))
        self.settle()

    def pass_on(self, end: int) -> None:
        """Let one end send what it has to send."""
        self.flying[1 - end].extend(self.ends[end].send(self.now))

    def arrive(self, end: int, place: int = 0) -> None:
        """Let something arrive."""
        if self.flying[end]:
            self.ends[end].take(self.flying[end].pop(place % len(self.flying[end])), self.now)

    def settle(self, rounds: int = 6) -> None:
        """Let everything arrive, and be answered."""
        for _ in range(rounds):
            for end in (0, 1):
                self.now += 0.01
                self.ends[end].tick(self.now)
                self.pass_on(end)
            for end in (0, 1):
                while self.flying[end]:
                    self.arrive(end)


_END = st.integers(0, 1)
_STEPS = st.one_of(
    st.tuples(st.just("offer"), _END, st.lists(st.integers(0, LARGEST), min_size=1, max_size=6)),
    st.tuples(st.just("send"), _END, st.just(0)),
    st.tuples(st.just("arrive"), _END, st.integers(0, 5)),
    st.tuples(st.just("lose"), _END, st.integers(0, 5)),
    st.tuples(st.just("double"), _END, st.integers(0, 5)),
    st.tuples(st.just("damage"), _END, st.integers(0, 2000)),
    st.tuples(st.just("wait"), _END, st.sampled_from([0.0001, 0.002, 0.01, 0.05])),
    st.tuples(st.just("stream"), _END, st.integers(1, 3000)),
    st.tuples(st.just("ping"), _END, st.just(0)),
    st.tuples(st.just("update key"), _END, st.just(0)),
)


def step(line: Line, what: str, end: int, value: Any) -> None:
    """Do one of the things that may happen."""
    twins, flying = line.ends[end], line.flying[end]
    match what:
        case "offer":
            twins.offer(value)
        case "send":
            line.pass_on(end)
        case "arrive":
            line.arrive(end, value)
        case "wait":
            line.now += value
            twins.tick(line.now)
        case "lose" if flying:
            flying.pop(value % len(flying))
        case "double" if flying:
            flying.append(flying[value % len(flying)])
        case "damage" if flying:
            damaged = bytearray(flying.pop(0))
            damaged[value % len(damaged)] ^= 1 << value % 8
            twins.take(bytes(damaged), line.now)


def ask(twins: Twins, what: str, size: int) -> None:
    """Want something of both that is not about datagrams."""

    def stream(quic: QuicConnection) -> None:
        quic.send_stream_data(0 if quic._is_client else 1, bytes(size))

    match what:
        case "stream":
            twins.both(stream)
        case "ping":
            twins.both(lambda quic: quic.send_ping(7))
        case "update key" if not twins.plain._cryptos[Epoch.ONE_RTT]._update_key_requested:
            twins.both(lambda quic: quic.request_key_update())


@settings(deadline=None, max_examples=40)
@given(st.lists(_STEPS, max_size=80))
def test_whatever_happens_both_do_the_same(steps: list[tuple[str, int, Any]]) -> None:
    line = Line()
    for what, end, value in steps:
        step(line, what, end, value)
        ask(line.ends[end], what, value)
    line.settle()


def test_most_packets_go_the_short_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    near, far = (end.short for end in line.ends)
    near_recovery = near._loss
    assert isinstance(near_recovery, Recovery)
    line.ends[0].offer([1000] * 4)
    for name in ("_write_application", "_payload_received"):
        monkeypatch.setattr(f"aioquic.quic.connection.QuicConnection.{name}", refuse)
    packets = [data for data, _ in near.datagrams_to_send(now=line.now)]
    assert len(packets) == 4
    for data in packets:
        far.receive_datagram(data, CLIENT, now=line.now)
    assert near_recovery.controller.in_flight > 4000
    assert far.next_event() is not None
    assert near.datagrams_to_send(now=line.now) == []


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the library was asked")


def test_what_is_unusual_goes_the_librarys_way() -> None:
    line = Line()
    near, far = line.ends
    near.offer([900])
    (packet,) = near.send(line.now)
    for nonsense in (b"", b"\x40", b"\x40" + near.short._peer_cid.cid, bytes(60), packet[:24], packet[:-1]):
        far.take(nonsense, line.now)
    far.take(packet, line.now, addr=ELSEWHERE)
    assert [path.addr for path in far.short._network_paths] == [ELSEWHERE, CLIENT], "the client has moved"
    near.offer([900])
    far.take(near.send(line.now)[0], line.now, addr=ELSEWHERE)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x31",
        b"\x31\x00",
        b"\x31\x05four",
        b"\x31\x44",
        b"\x31\x80\x00\x00\x01x",
        b"\x30to the end",
        b"\x31\x02ab\x31\x40\x03abc",
        b"\x31\x02ab\x00\x00",
        b"\x31\x02ab\x01",
        b"\x01\x31\x02ab",
        b"\x02\x00\x00\x00\x00",
        b"\x31\x02ab\x7f",
        b"\xff\xff",
    ],
)
def test_whatever_a_packet_carries_is_taken_as_the_library_takes_it(payload: bytes) -> None:
    line = Line()
    near, far = line.ends
    pair, number = near.short._cryptos[Epoch.ONE_RTT], near.short._packet_number
    header = b"\x43" + near.short._peer_cid.cid + number.to_bytes(4, "big")
    far.take(pair.encrypt_packet(header, payload, number), line.now)
    far.send(line.now)
