"""When what comes is acknowledged: never later than it should be, and less often where much comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridges.quic.acking import Acking


def acknowledged(times: list[float], orderly: list[bool] | None = None) -> list[tuple[float, int]]:
    """Let packets come at these times; return when acknowledgements leave, and for how many packets each."""
    acking = Acking()
    sent: list[tuple[float, int]] = []
    due, waiting = None, 0
    for index, now in enumerate(times):
        if due is not None and due <= now:
            sent.append((due, waiting))
            due, waiting = None, 0
        due = acking.due(now, due, in_order=True if orderly is None else orderly[index])
        waiting += 1
        if due <= now:
            sent.append((due, waiting))
            due, waiting = None, 0
    if due is not None:
        sent.append((due, waiting))
    return sent


def every(seconds: float, count: int) -> list[float]:
    return [number * seconds for number in range(count)]


def test_each_packet_of_a_slow_flow_is_acknowledged_by_itself() -> None:
    assert {packets for _, packets in acknowledged(every(0.0012, 500))} == {1}


def test_packets_of_a_fast_flow_are_acknowledged_by_the_ten() -> None:
    sent = acknowledged(every(0.00005, 5000))
    assert {packets for _, packets in sent[-400:-1]} == {10}


def test_what_a_bottleneck_stretches_is_acknowledged_as_ever() -> None:
    times = [packet * 0.001 + small for packet in range(500) for small in (0, 0.0005, 0.00055)]
    assert max(packets for _, packets in acknowledged(times)) <= 4


def test_a_fast_flow_that_pauses_is_acknowledged_within_five_milliseconds() -> None:
    times = [second + packet * 1e-5 for second in every(0.004, 200) for packet in range(5)]
    sent = acknowledged(times)
    assert len(sent) < 0.6 * 200
    last = times[-1]
    assert last < sent[-1][0] <= last + 0.005


def test_what_comes_out_of_order_is_acknowledged_as_ever() -> None:
    times = every(0.00005, 2000)
    slow = [each % 50 > 0 for each in range(2000)]
    sent = acknowledged(times, slow)
    for at, orderly in zip(times, slow, strict=True):
        if not orderly:
            assert any(at <= each <= at + 0.001 for each, _ in sent)


@given(st.lists(st.tuples(st.floats(0, 0.02), st.booleans()), min_size=2, max_size=200))
def test_nothing_waits_for_longer_than_five_milliseconds(packets: list[tuple[float, bool]]) -> None:
    now, times = 0.0, []
    for gap, _ in packets:
        now += gap
        times.append(now)
    sent = acknowledged(times, [orderly for _, orderly in packets])
    assert sum(count for _, count in sent) == len(times)
    assert all(before <= after for (before, _), (after, _) in pairwise(sent))
    for at in times:
        assert any(at <= each <= at + 0.005 + 1e-9 for each, _ in sent)
