"""What quic.inside.probes makes aioquic send is what the library would have sent, and is remembered by it."""

from __future__ import annotations

import pytest

from bridges.quic.inside.datagrams import replace_datagrams
from bridges.quic.inside.probes import datagram_size, resize, send_probe, watch
from bridges.quic.path_mtu import Fate, PathMtu
from tests.bridges.test_quic_inside_recovery import SERVER, Source, Wire


@pytest.fixture
def wire() -> Wire:
    return Wire()


def probe(wire: Wire, size: int = 1400) -> tuple[bytes, list[Fate]]:
    """Send a probe, and something small behind it; return the probe and what will become of it."""
    fates: list[Fate] = []
    ((data, address),) = send_probe(wire.client, size, wire.now, fates.append)
    assert address == SERVER
    assert len(data) == size
    wire.client.send_ping(0)
    return data, fates


def test_a_probe_arrives_and_is_acknowledged(wire: Wire) -> None:
    flight = wire.recovery.bytes_in_flight
    data, fates = probe(wire)
    assert wire.recovery.bytes_in_flight == flight, "a probe takes nothing from the window"
    behind = wire.send()
    wire.now += 0.05
    wire.take(wire.server, [data, *behind])
    wire.answer()
    assert fates == [Fate.ARRIVED]
    assert wire.recovery.bytes_in_flight == flight
    wire.exchange()
    assert wire.client._close_event is None
    assert wire.server._close_event is None


def test_a_lost_probe_is_known_by_what_came_behind_it_and_is_no_sign_of_a_queue(wire: Wire) -> None:
    controller = wire.recovery.controller
    controller.lost = pytest.fail  # type: ignore[method-assign, assignment]
    _, fates = probe(wire)
    behind = wire.send()
    wire.now += 0.05
    wire.take(wire.server, behind)
    wire.answer()
    wire.due()
    assert fates == [Fate.LOST]
    assert wire.recovery.reordering.acked(wire.now, [range(10_000)], 0.1) == []
    assert controller.in_flight == 0


def test_where_nothing_arrives_at_all_nothing_is_known_of_a_probe(wire: Wire) -> None:
    _, fates = probe(wire)
    wire.send()
    for _ in range(8):
        if not fates:
            wire.due()
            wire.send()
    assert fates == [Fate.UNKNOWN]


def test_packets_are_as_large_as_they_may_be(wire: Wire) -> None:
    assert datagram_size(wire.client) == 1200
    resize(wire.client, 1400)
    assert datagram_size(wire.client) == 1400
    wire.client.send_stream_data(0, bytes(5000))
    datagrams = wire.send()
    assert [len(data) for data in datagrams[:3]] == [1400] * 3
    assert len(datagrams) == 4
    assert wire.recovery.congestion_window % 1400 == wire.recovery.bytes_in_flight % 1400
    wire.now += 0.05
    wire.take(wire.server, datagrams)
    wire.answer()
    assert wire.recovery.bytes_in_flight == 0
    resize(wire.client, 1200)
    wire.client.send_stream_data(0, bytes(5000))
    assert max(map(len, wire.send())) == 1200


def watched(wire: Wire) -> PathMtu:
    """Return what watches a path that has taken large packets so far."""
    path = PathMtu(1200, 1400)
    path.probe(0.0)
    path.settled(0.0, Fate.ARRIVED)
    assert watch(wire.client, path)
    resize(wire.client, path.size)
    return path


def test_large_packets_that_are_lost_are_told(wire: Wire) -> None:
    path = watched(wire)
    for _ in range(12):
        wire.client.send_stream_data(0, bytes(1380))
        wire.send()
        wire.now += 0.02
        wire.client.send_ping(0)
        wire.exchange()
    assert path.size == 1200


def test_a_path_that_swallows_everything_is_tried_with_small_packets_after_a_second(wire: Wire) -> None:
    path = watched(wire)
    wire.client.send_stream_data(0, bytes(1 << 20))
    wire.send()
    began = wire.now
    while path.size > 1200:
        wire.due()
        assert max(map(len, wire.send()), default=0) <= 1400
    assert 1.0 <= wire.now - began < 1.5


def test_large_packets_that_only_probe_timeouts_take_for_lost_are_told(wire: Wire) -> None:
    path = watched(wire)
    source = Source([])
    replace_datagrams(wire.client, source)
    timeouts = 0
    while path.size > 1200:
        source.waiting.append(bytes(1350))
        wire.send()
        wire.due()
        timeouts += 1
        small = [each for each in wire.send() if len(each) <= 1200]
        wire.now += 0.05
        wire.take(wire.server, small)
        wire.answer()
    assert 6 <= timeouts < 20


def test_large_packets_that_arrive_are_told(wire: Wire) -> None:
    path = watched(wire)
    for count in range(24):
        wire.client.send_stream_data(0, bytes(1380))
        if count % 2:
            wire.send()
        wire.now += 0.02
        wire.client.send_ping(0)
        wire.exchange()
    assert path.size == 1400
