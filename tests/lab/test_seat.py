from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lab import reports
from lab.launcher.scoreboard import Scoreboard
from lab.launcher.seat import Seat

if TYPE_CHECKING:
    from pathlib import Path

JOINED = reports.encode(reports.Joined(t=1.0, participant="p", cluster="c", region="eu-west", room="r"))


def seat(file: Path, max_bytes: int = 10_000) -> tuple[Seat, Scoreboard]:
    scoreboard = Scoreboard()
    score = scoreboard.add("participant", region="eu-west", publishes=True)
    return Seat(scoreboard, score, file, max_bytes=max_bytes), scoreboard


async def test_ready_is_joined_and_again_for_the_next_process(tmp_path: Path) -> None:
    taken, scoreboard = seat(tmp_path / "lines")
    for _ in range(2):
        ready = asyncio.create_task(taken.ready())
        await asyncio.sleep(0)
        assert not ready.done()
        taken.take(JOINED)
        await asyncio.wait_for(ready, 5)
        assert scoreboard.scores["participant"].joined


async def test_lines_are_kept_in_a_bounded_file(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    taken, scoreboard = seat(file, max_bytes=10)
    for n in range(9):
        taken.take(b"%d 34\n" % n)
    assert file.read_bytes() == b"8 34\n"
    assert (tmp_path / "lines.1").read_bytes() == b"6 34\n7 34\n"
    assert scoreboard.garbled == 9
