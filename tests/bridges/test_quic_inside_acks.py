"""What quic.inside.acks changes inside aioquic: when a connection acknowledges, and nothing else."""

from __future__ import annotations

import pytest

from bridges.quic.inside.acks import acknowledge_rarely
from tests.bridges.test_quic_inside_recovery import Wire

_MOMENT = 1e-6


@pytest.fixture
def wire() -> Wire:
    """The server acknowledges rarely, and has seen the handshake."""
    wire = Wire(confirmed=False)
    acknowledge_rarely(wire.server)
    for _ in range(6):
        wire.exchange()
    return wire


def streamed(wire: Wire, packets: int, *, every: float, lose: frozenset[int] = frozenset()) -> list[int]:
    """Send packets with so many seconds between; return after which of them the server acknowledged."""
    acknowledged = []
    for number in range(packets):
        wire.client.send_stream_data(0, bytes(100))
        for data in wire.send():
            if number not in lose:
                wire.take(wire.server, [data])
        for wait in (_MOMENT, every - _MOMENT):  # at once, or by a timer
            wire.now += wait
            answers = [data for data, _ in wire.server.datagrams_to_send(now=wire.now)]
            if answers:
                acknowledged.append(number)
            wire.take(wire.client, answers)
    return acknowledged


def test_a_slow_flow_is_acknowledged_as_the_library_does_it(wire: Wire) -> None:
    assert len(streamed(wire, 40, every=0.0021)) >= 39


def test_a_fast_flow_is_acknowledged_by_the_ten(wire: Wire) -> None:
    streamed(wire, 700, every=0.00008)
    assert len(streamed(wire, 200, every=0.00008)) <= 21


def test_a_gap_in_a_fast_flow_is_told_within_a_millisecond(wire: Wire) -> None:
    streamed(wire, 700, every=0.00008)
    sent = streamed(wire, 20, every=0.00008, lose=frozenset({2}))
    assert any(3 <= number <= 3 + 14 for number in sent)
    streamed(wire, 100, every=0.00008)
    assert wire.recovery.reordering.false_losses == 0


def test_a_timer_is_set_for_what_waits(wire: Wire) -> None:
    streamed(wire, 700, every=0.00008)
    while streamed(wire, 1, every=0.00008):
        pass  # until a packet is not acknowledged at once
    at = wire.server.get_timer()
    assert at is not None
    assert wire.now < at <= wire.now + 0.005
