"""How much an agent moves, out of counts that begin anew with each connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridges.control.traffic import Bandwidth, Traffic
from causeway.api.figures import PeerFigures

BYTES = st.integers(0, 2**40)


def peer(name: str, incoming: int, outgoing: int, *, wire: str = "causeway/1") -> PeerFigures:
    return PeerFigures(kind="media", peer=name, wires=[wire], bytes_in=incoming, bytes_out=outgoing)


def test_it_is_the_mean_since_the_last_look() -> None:
    traffic = Traffic()
    assert traffic.bandwidth([peer("us", 5000, 7000)], 10.0) == Bandwidth(), "nothing to compare with yet"
    assert traffic.bandwidth([peer("us", 6000, 7000)], 12.0) == Bandwidth(4000, 0)
    assert traffic.bandwidth([peer("us", 6000, 7250)], 14.0) == Bandwidth(0, 1000)
    assert traffic.bandwidth([peer("us", 6000, 7250)], 14.0) == Bandwidth(), "no time has passed"


def test_peers_add_up_and_one_that_is_gone_counts_no_more() -> None:
    traffic = Traffic()
    assert traffic.bandwidth([], 0.0) == Bandwidth()
    two = [peer("us", 1000, 0), peer("ap", 500, 250), peer("ap", 500, 250, wire="owt")]
    assert traffic.bandwidth(two, 1.0) == Bandwidth(16_000, 4000)
    assert traffic.bandwidth([peer("us", 1000, 0)], 2.0) == Bandwidth()


def test_a_connection_that_began_anew_is_counted_from_its_beginning() -> None:
    traffic = Traffic()
    traffic.bandwidth([peer("us", 1_000_000, 500_000)], 0.0)
    assert traffic.bandwidth([peer("us", 300, 200)], 1.0) == Bandwidth(2400, 1600)


@given(st.lists(st.tuples(st.floats(0.001, 10.0), st.lists(st.tuples(BYTES, BYTES), max_size=3)), max_size=8))
def test_whatever_peers_count_it_is_never_negative(looks: list[tuple[float, list[tuple[int, int]]]]) -> None:
    traffic, now = Traffic(), 0.0
    for pause, counts in looks:
        now += pause
        bandwidth = traffic.bandwidth([peer(str(at), *moved) for at, moved in enumerate(counts)], now)
        assert min(bandwidth) >= 0
