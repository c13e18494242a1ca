from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.impairment.core import Bottleneck, Bursts, Cause, Fate, Hole, Impairment, Profile, Rebinding

_SHARES = st.sampled_from([0.0, 0.01, 0.3, 1.0])
_TIMES = st.sampled_from([0.0, 0.001, 0.04, 0.5])
_PROFILES = st.builds(
    Profile,
    delay=_TIMES,
    jitter=_TIMES,
    in_order=st.booleans(),
    loss=_SHARES,
    bursts=st.none() | st.builds(Bursts, share=st.floats(0, 0.5), length=st.floats(1, 30), density=_SHARES),
    reorder=_SHARES,
    reorder_delay=_TIMES,
    duplicate=_SHARES,
    mtu=st.none() | st.integers(1, 1500),
    bottleneck=st.none()
    | st.builds(Bottleneck, rate=st.floats(1e4, 1e9), queue=st.floats(0, 1), burst=st.integers(0, 10_000)),
    holes=st.lists(
        st.builds(Hole, begin=_TIMES, length=_TIMES, every=st.none() | st.floats(0.01, 1)), max_size=2
    ).map(tuple),
)
_SENDING = st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 1500)), max_size=50)


def run(path: Impairment, count: int, *, size: int = 1200, gap: float = 0.001) -> list[Fate]:
    return [path.send(n * gap, size) for n in range(count)]


@given(profile=_PROFILES, sending=_SENDING, seed=st.integers())
def test_every_datagram_has_one_fate_and_the_same_seed_the_same(
    profile: Profile, sending: list[tuple[float, int]], seed: int
) -> None:
    path, same = Impairment(profile, seed), Impairment(profile, seed)
    now, last = 0.0, 0.0
    for gap, size in sending:
        now += gap
        fate = path.send(now, size)
        assert same.send(now, size) == fate
        assert (fate.cause is None) == bool(fate.arrivals)
        assert len(fate.arrivals) <= 2
        slowest = profile.delay + profile.jitter + profile.reorder_delay + fate.waited
        for at in fate.arrivals:
            assert at >= now + profile.delay
            if profile.bottleneck is None and not profile.in_order:
                assert at <= now + slowest + 1e-9
        if profile.in_order and fate.arrivals:
            assert min(fate.arrivals) >= last
            last = max(fate.arrivals)
        if profile.bottleneck is not None:
            largest = 1500 + profile.bottleneck.overhead
            assert path.queued(now) <= max(largest, profile.bottleneck.queue * profile.bottleneck.rate / 8)
    assert path.sent == len(sending)
    assert path.queued(now + 1e6) == 0


def test_the_default_does_nothing() -> None:
    assert [fate.arrivals for fate in run(Impairment(Profile(), 1), 3)] == [(0.0,), (0.001,), (0.002,)]


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_as_many_as_asked_for_and_independent(seed: int) -> None:
    fates = run(Impairment(Profile(loss=0.05), seed), 20_000)
    lost = [fate.cause is Cause.LOSS for fate in fates]
    assert sum(lost) / len(lost) == pytest.approx(0.05, abs=0.008)
    behind_a_loss = [after for before, after in pairwise(lost) if before]
    assert sum(behind_a_loss) / len(behind_a_loss) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_bursts_have_their_share_and_length(seed: int) -> None:
    fates = run(Impairment(Profile(bursts=Bursts(share=0.02, length=8)), seed), 50_000)
    lost = [fate.cause is Cause.BURST for fate in fates]
    runs = sum(after and not before for before, after in pairwise([False, *lost]))
    assert sum(lost) / len(lost) == pytest.approx(0.02, abs=0.008)
    assert sum(lost) / runs == pytest.approx(8, abs=2)


def test_thin_bursts_let_some_through() -> None:
    fates = run(Impairment(Profile(bursts=Bursts(share=0.2, length=10, density=0.5)), 1), 50_000)
    assert sum(fate.cause is Cause.BURST for fate in fates) / len(fates) == pytest.approx(0.1, abs=0.02)


def test_one_kind_of_chance_leaves_the_others_alone() -> None:
    lossy = run(Impairment(Profile(loss=0.1, jitter=0.01), 1), 1000)
    also_doubled = run(Impairment(Profile(loss=0.1, jitter=0.01, duplicate=0.5), 1), 1000)
    assert [fate.cause for fate in lossy] == [fate.cause for fate in also_doubled]
    assert [fate.arrivals[:1] for fate in lossy] == [fate.arrivals[:1] for fate in also_doubled]


def test_jitter_reorders_unless_told_not_to() -> None:
    def overtaken(*, in_order: bool) -> int:
        path = Impairment(Profile(delay=0.05, jitter=0.01, in_order=in_order), 1)
        arrivals = [fate.arrivals[0] for fate in run(path, 1000)]
        assert all(at >= 0.05 + n * 0.001 for n, at in enumerate(arrivals))
        return sum(later < earlier for earlier, later in pairwise(arrivals))

    assert overtaken(in_order=False) > 300
    assert overtaken(in_order=True) == 0


def test_what_is_held_back_is_overtaken() -> None:
    fates = run(Impairment(Profile(reorder=0.1, reorder_delay=0.0035), 1), 5000)
    late = [n for n, fate in enumerate(fates) if fate.arrivals[0] > n * 0.001]
    assert len(late) / len(fates) == pytest.approx(0.1, abs=0.02)
    assert all(fates[n].arrivals[0] == pytest.approx(n * 0.001 + 0.0035) for n in late)


def test_duplicates_arrive_twice() -> None:
    path = Impairment(Profile(duplicate=0.25), 1)
    fates = run(path, 5000)
    assert sum(len(fate.arrivals) == 2 for fate in fates) / 5000 == pytest.approx(0.25, abs=0.03)
    assert path.delivered == sum(len(fate.arrivals) for fate in fates)


def test_larger_than_the_path_vanishes() -> None:
    path = Impairment(Profile(mtu=1280), 1)
    assert path.send(0, 1280).arrivals
    assert path.send(0, 1281).cause is Cause.SIZE


def test_holes_swallow_everything_while_they_last() -> None:
    path = Impairment(Profile(holes=(Hole(begin=10, length=10), Hole(begin=100, length=20, every=100))), 1)
    swallowed = [n for n, fate in enumerate(run(path, 350, gap=1)) if fate.cause is Cause.HOLE]
    assert swallowed == [*range(10, 20), *range(100, 120), *range(200, 220), *range(300, 320)]


def test_holes_count_from_the_beginning_of_the_path() -> None:
    path = Impairment(Profile(holes=(Hole(begin=1, length=1),)), 1, begin=1000)
    assert [path.send(at, 1).cause for at in (1000.5, 1001.5, 1002.5)] == [None, Cause.HOLE, None]


def test_a_cut_begins_at_once_and_is_forgotten_afterwards() -> None:
    path = Impairment(Profile(holes=(Hole(begin=500, length=1),)), 1, begin=1000)
    for at in (1001, 1011, 1021):
        path.cut(at, 2)
        assert [path.send(at + after, 1).cause for after in (0, 1.9, 2.1)] == [Cause.HOLE, Cause.HOLE, None]
    assert len(path.profile.holes) == 2


def test_a_bottleneck_sends_one_after_the_other_and_drops_what_does_not_fit() -> None:
    # 8 Mbit/s: a millisecond for 1,000 bytes; room for five of them.
    path = Impairment(Profile(delay=0.02, bottleneck=Bottleneck(rate=8e6, queue=0.005, overhead=28)), 1)
    fates = [path.send(0, 972) for _ in range(8)]
    assert [fate.arrivals[0] for fate in fates[:5]] == [pytest.approx(0.02 + n * 0.001) for n in range(1, 6)]
    assert [fate.waited for fate in fates[:5]] == [pytest.approx(n * 0.001) for n in range(5)]
    assert [fate.cause for fate in fates[5:]] == [Cause.QUEUE] * 3
    assert path.queued(0.0025) == 3000
    assert path.send(0.0025, 972).arrivals[0] == pytest.approx(0.026)


def test_saved_tokens_pass_at_once() -> None:
    path = Impairment(Profile(bottleneck=Bottleneck(rate=8e6, queue=1, burst=3000, overhead=0)), 1)
    at_once = [path.send(1, 1000).arrivals[0] for _ in range(5)]
    assert at_once == [pytest.approx(at) for at in (1, 1, 1, 1.001, 1.002)]
    assert path.send(1.004, 1000).arrivals[0] == pytest.approx(1.004)


def test_several_flows_share_a_bottleneck_evenly_loaded() -> None:
    path = Impairment(Profile(bottleneck=Bottleneck(rate=2e6, queue=0.1)), 1)
    passed = 0
    for n in range(4000):  # 4 Mbit/s of 1,000 bytes, from two senders
        passed += len(path.send(n * 0.002, 972).arrivals)
    assert passed == pytest.approx(2e6 / 8 / 1000 * 8, rel=0.02)


def test_an_idle_line_takes_a_datagram_larger_than_its_queue() -> None:
    path = Impairment(Profile(bottleneck=Bottleneck(rate=8e6, queue=0.0005)), 1)
    assert path.send(0, 1200).arrivals
    assert path.send(0, 1200).cause is Cause.QUEUE


def test_a_profile_can_be_replaced() -> None:
    path = Impairment(Profile(loss=1), 1)
    assert path.send(0, 1).cause is Cause.LOSS
    path.profile = Profile()
    assert path.send(0, 1).arrivals == (0,)
    assert path.lost == {Cause.LOSS: 1}


def test_a_nat_forgets_at_its_times() -> None:
    nat = Rebinding(every=10, begin=3)
    assert [nat.binding(at) for at in (0, 2.9, 3, 12.9, 13, 25)] == [0, 0, 1, 1, 2, 3]
    assert [nat.next_change(at) for at in (0, 3, 14)] == [3, 13, 23]
    assert Rebinding(every=5).binding(5) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Profile(loss=1.1),
        lambda: Profile(duplicate=-0.1),
        lambda: Profile(delay=-1),
        lambda: Profile(mtu=0),
        lambda: Bursts(share=1),
        lambda: Bursts(share=0.1, length=0.5),
        lambda: Bursts(share=0.9, length=1),
        lambda: Bottleneck(rate=0, queue=1),
        lambda: Hole(begin=0, length=-1),
        lambda: Hole(begin=0, length=1, every=0),
        lambda: Rebinding(every=0),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"\w"):
        make()
