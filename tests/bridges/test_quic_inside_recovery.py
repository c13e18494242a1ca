"""What quic.inside.recovery replaces inside aioquic is still asked as it was, and does what it should."""

from __future__ import annotations

import math
import ssl
from typing import TYPE_CHECKING

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import DatagramFrameReceived

from bridges.quic import Certificate, QuicSettings, dial, listen
from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.recovery import (
    CONGESTION,
    Recovery,
    note_lateness,
    note_peer_clock,
    path,
    replace_recovery,
    steer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.quic import Connection

CLIENT, SERVER = ("192.0.2.1", 1), ("192.0.2.2", 2)


class Wire:
    """A client with our recovery and a stock server, 50 ms apart each way; no socket, no clock.

    `both`: the server has our recovery, too.
    """

    def __init__(self, *, confirmed: bool = True, both: bool = False) -> None:
        self.now = 1.0
        certificate = Certificate.self_signed("recovery")
        self.client = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True,
                alpn_protocols=["h3"],
                max_datagram_frame_size=65536,
                verify_mode=ssl.CERT_NONE,
                server_name="x",
            )
        )
        self.recovery = replace_recovery(self.client)
        self.client.connect(SERVER, now=self.now)
        self.server = QuicConnection(
            configuration=QuicConfiguration(
                is_client=False,
                alpn_protocols=["h3"],
                certificate=certificate.certificate,
                max_datagram_frame_size=65536,
                private_key=certificate.private_key,
            ),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )
        if both:
            replace_recovery(self.server)
        for _ in range(6 if confirmed else 0):
            self.exchange()

    def exchange(self) -> None:
        """Let everything that can be sent travel once to the server, and once back."""
        sent = self.send()
        self.now += 0.05
        self.take(self.server, sent)
        self.now += 0.002  # acknowledgements are delayed by a millisecond
        answers = [data for data, _ in self.server.datagrams_to_send(now=self.now)]
        self.now += 0.05
        self.take(self.client, answers)

    def send(self) -> list[bytes]:
        """Return what the client sends now."""
        return [data for data, _ in self.client.datagrams_to_send(now=self.now)]

    def take(self, quic: QuicConnection, datagrams: list[bytes]) -> None:
        """Let datagrams arrive."""
        for data in datagrams:
            quic.receive_datagram(data, CLIENT if quic is self.server else SERVER, now=self.now)

    def answer(self) -> None:
        """Let what the server has to say arrive."""
        self.now += 0.002
        answers = [data for data, _ in self.server.datagrams_to_send(now=self.now)]
        self.now += 0.05
        self.take(self.client, answers)

    def send_and_lose(self, count: int) -> None:
        """Let so many packets be lost, and the loss be noticed."""
        for data in (bytes(1000),) * count:
            self.client.send_stream_data(0, data)
            self.send()
        self.client.send_stream_data(0, b"what comes behind them")
        self.exchange()
        self.due()
        self.exchange()

    def due(self) -> None:
        """Let the client's timer come."""
        at = self.client.get_timer()
        assert at is not None
        self.now = max(self.now, at) + 0.0001
        self.client.handle_timer(now=self.now)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_the_controller_is_told_what_is_sent_and_acknowledged_and_decides_the_window(wire: Wire) -> None:
    controller = wire.recovery.controller
    assert controller.in_flight == wire.recovery.bytes_in_flight == 0
    assert controller.delay.smoothed == pytest.approx(0.1, abs=0.01)
    wire.client.send_stream_data(0, bytes(5000))
    datagrams = wire.send()
    assert len(datagrams) == 5
    assert controller.in_flight == sum(map(len, datagrams))
    wire.now += 0.05
    wire.take(wire.server, datagrams)
    wire.answer()
    assert controller.in_flight == 0
    assert controller.window - 1200 < wire.recovery.congestion_window <= controller.window
    assert wire.recovery.congestion_window % 1200 == 0


@pytest.mark.parametrize(("took", "queue"), [(0.02, 0.0), (0.2, 0.175)], ids=["busy", "overloaded"])
def test_what_a_peer_takes_to_acknowledge_is_no_queue_unless_it_does_not_keep_up(
    wire: Wire, took: float, queue: float
) -> None:
    delay = wire.recovery.controller.delay
    base = delay.base
    for _ in range(30):
        wire.client.send_ping(1)
        sent = wire.send()
        wire.now += 0.05
        wire.take(wire.server, sent)
        wire.now += took
        answers = [data for data, _ in wire.server.datagrams_to_send(now=wire.now)]
        wire.now += 0.05
        wire.take(wire.client, answers)
    assert delay.smoothed - base == pytest.approx(queue, abs=0.01)


def test_only_a_connection_that_has_not_begun_can_be_changed(wire: Wire) -> None:
    with pytest.raises(ValueError, match="has begun"):
        replace_recovery(wire.client)


def test_the_pacer_asks_the_controller_and_charges_what_a_packet_weighs(wire: Wire) -> None:
    rate = wire.recovery.controller.pacing_rate
    assert rate is not None
    wire.now += 1
    wire.client.send_stream_data(0, bytes(60_000))
    burst = wire.send()
    assert len(burst) == 6
    pacing_at = wire.client.get_timer()
    assert pacing_at is not None
    assert 0 < pacing_at - wire.now < 3 * 1200 / rate
    wire.now = pacing_at + 0.0001
    assert wire.send()
    # Small packets leave as many at once as weigh the same.
    small = Wire()
    small.now += 1
    count = 0
    for number in range(30):
        small.client.send_stream_data(4 * number, bytes(50))
        count += len(small.send())
    assert count == 30


def test_three_later_packets_do_not_make_a_loss_but_time_does(wire: Wire) -> None:
    first = datagrams_of(wire, 6)
    wire.now += 0.05
    wire.take(wire.server, first[1:])
    wire.answer()
    assert len(wire.recovery.spaces[2].sent_packets) == 1
    wire.due()
    assert wire.now > 1.0
    assert len(wire.recovery.spaces[2].sent_packets) == 0
    assert wire.send()  # it goes again


def test_what_overtakes_another_shows_that_the_path_does_not_keep_the_order(wire: Wire) -> None:
    reordering = wire.recovery.reordering
    first, second = datagrams_of(wire, 2)
    before = reordering.patience(wire.now, 0.1, 0.1)
    wire.now += 0.05
    wire.take(wire.server, [second])
    wire.answer()
    assert reordering.patience(wire.now, 0.1, 0.1) == before
    wire.now -= 0.0515  # both acknowledgements come within a millisecond
    wire.take(wire.server, [first])
    wire.answer()
    assert reordering.false_losses == 0
    assert reordering.patience(wire.now, 0.1, 0.1) > before


def test_a_packet_that_comes_after_all_is_no_loss_and_more_is_waited_for(wire: Wire) -> None:
    reordering = wire.recovery.reordering
    first = datagrams_of(wire, 6)
    wire.now += 0.05
    wire.take(wire.server, first[1:])
    wire.answer()
    before = reordering.patience(wire.now, 0.1, 0.1)
    wire.due()
    assert reordering.false_losses == 0
    wire.take(wire.server, first[:1])
    wire.answer()
    assert reordering.false_losses == 1
    assert reordering.patience(wire.now, 0.1, 0.1) > before


def test_where_packets_are_lost_the_end_of_what_was_sent_is_probed(wire: Wire) -> None:
    wire.send_and_lose(1)
    wire.client.send_stream_data(0, bytes(1000))
    last = wire.send()
    sent_at = wire.now
    wire.due()
    assert wire.now - sent_at < 0.02, "long before a round trip has passed"
    assert not wire.recovery._silence.timeouts, "nobody is silent"
    (probe,) = wire.send()
    assert len(probe) < 60
    wire.now += 0.05
    wire.take(wire.server, [probe])
    wire.answer()
    assert wire.now - sent_at < 0.12
    (again,) = wire.send()
    assert len(again) == pytest.approx(len(last[0]), abs=10)


def test_what_the_pacer_holds_back_is_no_end_and_a_full_window_is_not_probed(wire: Wire) -> None:
    wire.send_and_lose(1)
    while wire.client._pacing_at is None:
        wire.client.send_stream_data(0, bytes(1000))
        wire.send()
    ready_at = wire.client._pacing_at
    wire.recovery._tail.postpone(wire.now)
    wire.recovery.on_loss_detection_timeout(now=wire.now)
    assert wire.recovery._tail.due > ready_at
    wire.now += 1.0
    wire.recovery.controller.sent(wire.now, 10 * wire.recovery.controller.window)
    wire.recovery.on_loss_detection_timeout(now=wire.now)
    assert wire.recovery._tail.due == math.inf
    assert not wire.client._probe_pending


def test_probes_are_not_backed_off_and_carry_more_than_one_packet(wire: Wire) -> None:
    controller = wire.recovery.controller
    for _ in range(20):  # more than the window
        wire.now += 0.02
        wire.client.send_stream_data(0, bytes(4000))
        wire.send()
    assert controller.in_flight > controller.window - 1200
    gaps, packets = [], []
    for _ in range(6):
        before = wire.now
        wire.due()
        gaps.append(wire.now - before)
        packets.append(0)
        while (sent := len(wire.send())) or wire.client.get_timer() == wire.client._pacing_at:
            packets[-1] += sent
            wire.now = wire.client.get_timer() or wire.now
    assert max(gaps[1:]) < 0.1
    assert min(packets[1:]) >= 4


def test_who_sends_datagrams_is_told_of_each_probe_of_a_silent_path(wire: Wire) -> None:
    source = Source([])
    replace_datagrams(wire.client, source)
    wire.client.send_stream_data(0, b"into the void")
    wire.send()
    for knocks in (1, 2, 3):
        wire.due()
        wire.send()
        assert source.knocks == knocks
    replace_datagrams(QuicConnection(configuration=QuicConfiguration(is_client=True)), source)


def test_a_stock_connection_takes_lateness_without_minding() -> None:
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    steer(quic, "reno")
    note_lateness(quic, 1.0)
    note_peer_clock(quic, 1.0, 7)
    assert not isinstance(quic._loss, Recovery)
    steer(quic, CONGESTION)
    note_lateness(quic, 1.0)
    assert isinstance(quic._loss, Recovery)
    assert quic._loss.controller.delay.own > 0
    for at, stamp in ((1.0, 0), (1.1, 40_000)):
        note_peer_clock(quic, at, stamp)
    assert quic._loss.controller.delay.returning.queue(1.1) > 0


def test_datagrams_come_from_the_source_and_it_is_told_what_becomes_of_each(wire: Wire) -> None:
    source = Source([b"first", b"second", b"third"])
    replace_datagrams(wire.client, source)
    datagrams = wire.send()
    assert source.waiting == []
    source.waiting = [b"lost" * 200]
    lost = wire.send()
    assert lost
    source.waiting = [b"later" * 200]
    later = wire.send()
    wire.now += 0.05
    wire.take(wire.server, datagrams + later)
    wire.answer()
    arrived = []
    while (event := wire.server.next_event()) is not None:
        if isinstance(event, DatagramFrameReceived):
            arrived.append(event.data)
    assert arrived == [b"first", b"second", b"third", b"later" * 200]
    wire.due()
    outcomes = dict(source.outcomes)
    assert outcomes == {
        b"first": True,
        b"second": True,
        b"third": True,
        b"later" * 200: True,
        b"lost" * 200: False,
    }


def test_the_path_is_what_our_controller_says_of_it(wire: Wire) -> None:
    measured = path(wire.client)
    assert measured is not None
    assert measured == (wire.recovery.controller.rate, wire.recovery.controller.delay.base)
    assert measured.rate > 0
    assert 0.1 <= measured.round_trip < 0.11
    assert path(wire.server) is None, "another controller steers there"
    fresh = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    replace_recovery(fresh)
    assert path(fresh) is None, "nothing was measured yet"


def test_a_datagram_that_becomes_too_late_while_it_is_sent_is_sent_all_the_same(wire: Wire) -> None:
    class Hasty(Source):
        asked = 0

        def head(self) -> bytes | None:
            self.asked += 1
            return super().head() if self.asked == 1 else None

    source = Hasty([b"just in time"])
    replace_datagrams(wire.client, source)
    wire.take(wire.server, wire.send())
    assert source.waiting == []
    while (event := wire.server.next_event()) is not None:
        if isinstance(event, DatagramFrameReceived):
            assert event.data == b"just in time"
            return
    raise AssertionError("it did not arrive")


async def test_connections_use_the_controller_that_the_settings_name() -> None:
    certificate = Certificate.self_signed("recovery")
    for name, ours in (("causeway", True), ("reno", False), ("cubic", False)):
        settings = QuicSettings(congestion=name)  # type: ignore[arg-type] # one of the names
        accepted: list[Connection] = []

        def accept(connection: Connection, accepted: list[Connection] = accepted) -> Quiet:
            accepted.append(connection)
            return Quiet()

        listener = await listen(
            "127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=settings
        )
        try:
            connection = await dial(
                "127.0.0.1", listener.port, fingerprint=certificate.fingerprint, settings=settings
            )
            for each in (connection, *accepted):
                assert isinstance(each.quic._loss, Recovery) is ours
            connection.close()
            await connection.wait_closed()
        finally:
            listener.close()


class Quiet:
    """Takes what comes."""

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None: ...

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def connection_lost(self, reason: str) -> None: ...


class Source:
    """Datagrams to be sent."""

    def __init__(self, waiting: list[bytes]) -> None:
        self.waiting = waiting
        self.outcomes: list[tuple[bytes, bool]] = []
        self.knocks = 0

    def head(self) -> bytes | None:
        return self.waiting[0] if self.waiting else None

    def taken(self) -> Callable[[bool], None]:
        data = self.waiting.pop(0)
        return lambda arrived: self.outcomes.append((data, arrived))

    def knock(self) -> None:
        self.knocks += 1


def datagrams_of(wire: Wire, count: int) -> list[bytes]:
    """Return so many datagrams, sent one behind the other."""
    datagrams = []
    for _ in range(count):
        wire.now += 0.0002
        wire.client.send_stream_data(0, bytes(1000))
        datagrams += wire.send()
    assert len(datagrams) == count
    return datagrams
