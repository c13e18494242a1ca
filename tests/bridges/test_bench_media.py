"""What the benchmarks of media judge by: growth, the search for a limit, tables and plots."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from typing import TYPE_CHECKING

import pytest

from bench._media.camera import Sent, shoot
from bench._media.flat import growth, judged
from bench._media.site import Site
from bench._plots import Bars, Curves
from bench._results import Results
from bench._virtual.media import SOUND, VIDEO, Track
from bench.soak import Look, grown, lasting
from bench.tracks import search

if TYPE_CHECKING:
    from pathlib import Path


def looks(*counts: dict[str, int], mebibytes: float = 50.0) -> list[Look]:
    return [Look(number, mebibytes, {"all": 10_000, **each}) for number, each in enumerate(counts, start=1)]


def test_growth_is_that_of_most_points_and_not_of_a_few() -> None:
    noise = random.Random(1)
    points = [(float(x), 50 + 0.1 * x + noise.uniform(-0.2, 0.2)) for x in range(60)]
    points[10], points[40] = (10.0, 500.0), (40.0, 1.0)
    assert growth(points) == pytest.approx(5.9, abs=0.2)
    assert growth([(float(x), 50.0) for x in range(9)]) == 0
    assert growth([(1.0, 2.0)]) == 0
    assert judged([(float(x), 0.0) for x in range(9)])[0] == (3.0, 0.0)


def test_what_is_held_at_the_beginning_may_be_held_at_the_end_and_nothing_more() -> None:
    steady = looks({"bridges.Pull": 2}, {"bridges.Pull": 9}, {"bridges.Pull": 2}, {"bridges.Pull": 2})
    leaking = looks(*({"bridges.Pull": count} for count in range(4)))
    assert lasting(steady) == []
    assert lasting(leaking) == ["bridges.Pull: 0 -> 2"]
    assert lasting(looks({}, {"bridges.figures.Tally": 3})) == []


def test_growth_of_a_process_is_told_in_mebibytes_and_in_objects() -> None:
    found = [Look(minute, 50.0 + minute, {"all": 10_000 + 100 * minute}) for minute in range(9)]
    mebibytes, objects = grown(found)
    assert mebibytes == pytest.approx(5)
    assert objects == pytest.approx(500)


class Counting:
    def __init__(self, track: Track) -> None:
        self.track = track
        self.count = 0

    def shoot(self, sent: Sent) -> None:
        self.count += 1
        sent.media_bytes += self.track.size


async def test_every_camera_captures_all_its_frames_however_late_the_process_is() -> None:
    cameras = [Counting(each) for each in (VIDEO, SOUND, VIDEO)]
    sent = await shoot(cameras, 0.1)
    assert [each.count for each in cameras] == [3, 5, 3]
    assert sent.media_bytes == 6 * VIDEO.size + 5 * SOUND.size


@pytest.mark.parametrize("limit", [0, 1, 5, 16, 23, 100, 128, 500])
async def test_the_greatest_number_that_is_good_is_found_in_few_steps(limit: int) -> None:
    tried = []

    async def is_good(number: int) -> bool:
        tried.append(number)
        return number <= limit

    assert await search(is_good, most=128) == min(limit, 128)
    assert len(tried) <= 16


@pytest.mark.parametrize(("wire", "direct"), [("causeway", True), ("owt, Reno", False)])
async def test_frames_cross_two_bridges_of_a_benchmark(wire: str, direct: bool) -> None:
    async with (
        Site.running("near", wire, direct=direct) as near,
        Site.running("far", wire, direct=direct) as far,
    ):
        await far.on_cascade("near", await near.on_info())
        await near.on_offer("s", [VIDEO, SOUND])
        await far.on_take("of-s", "near", "s", ["video", "audio"])
        await near.on_subscribed(2)
        sent = await near.on_send(["s"], 0.4)
        taken: dict[int, float] = {}
        async with asyncio.timeout(10):
            while len(taken) < len(sent["video"]) + len(sent["sound"]):
                taken |= await far.on_taken()
                await asyncio.sleep(0.01)
        assert set(taken) == {*sent["video"], *sent["sound"]}
        await far.on_untake("of-s")
        await near.on_withdraw("s")
        await far.on_uncascade("near")
        assert await near.on_at_rest()
        assert await far.on_at_rest()
        assert await near.on_complaints() == await far.on_complaints() == []


def results(directory: Path, *arguments: str) -> Results:
    parser = argparse.ArgumentParser(prog="bench")
    Results.options(parser)
    return Results.of("name", parser, parser.parse_args(["--out", str(directory), *arguments]))


def test_tables_and_plots_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper = results(tmp_path)
    paper.table(("what", "much"), [["a", "1"], ["longer", "22"]], part="part")
    assert (tmp_path / "name-part.md").read_text() == (
        "| what | much |\n| --- | ---: |\n| a | 1 |\n| longer | 22 |\n"
    )
    assert "longer    22" in capsys.readouterr().out
    bars = Bars(title="b", unit="%", names=["x", "y"], series={"ours": [1, math.inf], "other": [2, math.nan]})
    nothing = Curves(title="c", unit="ms", across="n", series={"ours": [(1, math.inf)]})
    curves = Curves(title="c", unit="ms", across="n", series={"ours": [(1, 2), (2, 3)]}, limits={"limit": 2})
    paper.draw([[bars, nothing], [curves]], title="all")
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_plotter_the_benchmark_ends_at_once_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        results(tmp_path)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    results(tmp_path, "--no-plot").draw([[]], title="nothing")
    assert list(tmp_path.iterdir()) == []
