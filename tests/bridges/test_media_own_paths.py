"""Our own media on whole paths: real QUIC connections in virtual time, with everything of ours at both ends.

One seed each; `bench/lossy_link.py` has the whole matrix, beside other wires.
"""

from __future__ import annotations

import pytest

from bench._virtual.lossy import Cell, Lossy, told


@pytest.mark.parametrize(
    ("round_trip", "loss", "in_time", "p99", "overhead"),
    [
        (0.08, 0.02, 0.999, 0.14, 0.2),
        (0.08, 0.05, 0.999, 0.225, 0.2),
        (0.2, 0.05, 0.995, 0.125, 1.0),
    ],
)
def test_pictures_and_sound_are_handed_on_in_time(
    round_trip: float, loss: float, in_time: float, p99: float, overhead: float
) -> None:
    cell = Cell.merged(
        [told(Lossy(loss=loss), round_trip, "causeway", seed=seed, seconds=12) for seed in (1, 2)]
    )
    assert cell.in_time("video") >= in_time
    assert cell.in_time("sound") >= in_time
    assert cell.delay("video", 0.99) <= p99
    assert cell.overhead <= overhead


def test_where_it_does_not_stock_reno_falls_behind() -> None:
    assert told(Lossy(loss=0.05), 0.08, "reno", seed=1, seconds=6).in_time("video") < 0.5
