"""Delays between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from causeway.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_cap_and_starts_again_after_reset() -> None:
    backoff = Backoff(base=1, cap=5, floor=0, uniform=lambda _low, high: high)
    assert [backoff.next_delay() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next_delay() == 1


@given(st.floats(0.01, 5), st.floats(0.01, 60), st.floats(0, 0.5), st.integers(0, 3000))
def test_every_delay_is_between_floor_and_cap(base: float, cap: float, floor: float, failures: int) -> None:
    backoff = Backoff(base=base, cap=cap, floor=floor)
    backoff.attempts = failures
    assert floor <= backoff.next_delay() <= max(cap, floor)


def test_delays_are_spread_over_the_whole_range() -> None:
    backoff = Backoff(base=10, cap=10, floor=0)
    delays = [backoff.next_delay() for _ in range(300)]
    assert min(delays) < 2
    assert max(delays) > 8
