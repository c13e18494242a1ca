"""How connections share a bottleneck and carry media over bad paths: ours, Reno and CUBIC in one run.

Everything is real QUIC (aioquic's connections, TLS, packets, acknowledgements) over simulated paths in
virtual time, so the figures do not depend on the machine. Ours carries media on our own media wire, all of
it; Reno and CUBIC are the library's own, with a stream per frame. The stories:

1. A greedy flow alone: share of the line, time in its queue (median / 95th percentile, ms), packets dropped.
2. Beside a flow of another kind, or of the same: each one's share of the line, and the queue. Where packets
   are lost at random, what the other gets there alone, too: Reno is held down by the losses themselves.
3. A hole of two seconds: how long after its end (ms) the first sound packet and picture are there in time,
   and how many later ones are not.
4. Beside a flow that does not give way: one in the manner of BBR, one of a fixed rate.
5. Media over bottlenecks: share of video, key frames and sound within 200 ms beyond the path's delay, and the
   99th percentile of the video's delay (ms). Ours counts what is handed on, in order and decodable.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from bench._machine import report
from bench._plots import Bars
from bench._results import Results
from bench._virtual.peer import Stalls
from bench._virtual.rivals import BANDWIDTH
from bench._virtual.scenario import OURS, Line, greedy, hole, media

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Figures = dict[str, float]
CONTROLLERS: Final = (OURS, "reno", "cubic")
MEGABIT: Final = 1e6
BEGIN: Final = 0.5
LATER: Final = 3.5


class Load(NamedTuple):
    """A line, how many video and sound tracks it carries, and what else there is."""

    line: Line
    tracks: int
    rival: str | None = None
    back_rival: str | None = None
    stalls: Stalls | None = None
    since: float = 2.0


class Row(NamedTuple):
    """One story, told for one controller with every seed."""

    part: str
    name: str
    controller: str
    story: Callable[[int], Figures]


# --- stories ------------------------------------------------------------------------------------


def alone(line: Line, controller: str, seed: int) -> Figures:
    """Let one flow have the line."""
    result = greedy(line, [(controller, BEGIN)], seed=seed, seconds=20)
    return {
        "share": result.shares[0],
        "queue": 1e3 * result.queue,
        "queue_p95": 1e3 * result.queue_p95,
        "dropped": result.dropped,
    }


def beside(line: Line, controller: str, rival: str | float, seed: int) -> Figures:
    """Let two flows share a line; the rival begins with us or, with every other seed, later."""
    at_once = seed % 2 and rival != controller
    flows = [(controller, BEGIN), (rival, (BEGIN if at_once else LATER) + (seed * 0.0137) % 0.1)]
    result = greedy(line, flows, seed=seed, seconds=30)
    found = {
        "share": result.shares[0],
        "rival": result.shares[1],
        "queue": 1e3 * result.queue,
        "queue_p95": 1e3 * result.queue_p95,
    }
    if line.loss:
        found["rival_alone"] = greedy(line, flows[1:], seed=seed, seconds=30).shares[0]
    return found


def after_hole(line: Line, controller: str, seed: int) -> Figures:
    """Let the path be silent for two seconds."""
    result = hole(line, controller, seed=seed)
    return {
        "sound": 1e3 * result.sound,
        "video": 1e3 * result.video,
        "sound_missing": result.sound_missing,
        "video_missing": result.video_missing,
    }


def tracks(load: Load, controller: str, seed: int) -> Figures:
    """Carry so many video and sound tracks."""
    result = media(
        load.line,
        controller,
        seed=seed,
        video=load.tracks,
        sound=load.tracks,
        rival=load.rival,
        back_rival=load.back_rival,
        stalls=load.stalls,
        since=load.since,
    )
    return {
        "video": result["video"].in_time,
        "key": result["key"].in_time,
        "sound": result["sound"].in_time,
        "video_p99": 1e3 * result["video"].p99,
    }


# --- which ---------------------------------------------------------------------------------------


def lines_alone() -> dict[str, Line]:
    """Return the lines on which a flow is alone."""
    lines = {
        f"2 Mbit/s, {trip:.0f} ms, loss {loss:.0%}": Line(round_trip=trip / 1e3, rate=2 * MEGABIT, loss=loss)
        for trip in (20, 80, 200)
        for loss in (0.0, 0.02, 0.05)
    }
    return lines | {
        "10 Mbit/s, 80 ms, loss 5%": Line(round_trip=0.08, rate=10 * MEGABIT, loss=0.05),
        "10 Mbit/s, 80 ms, loss 8%": Line(round_trip=0.08, rate=10 * MEGABIT, loss=0.08),
        "20 Mbit/s, 80 ms, loss 2%": Line(round_trip=0.08, rate=20 * MEGABIT, loss=0.02),
        "2 Mbit/s, 80 ms, queue of 30 ms": Line(round_trip=0.08, rate=2 * MEGABIT, queue=0.03),
        "2 Mbit/s, 80 ms, queue of 12 ms": Line(round_trip=0.08, rate=2 * MEGABIT, queue=0.012),
    }


def lines_shared() -> dict[str, tuple[Line, str]]:
    """Return the lines that are shared, and with whom."""
    lines = {
        f"Reno, {rate} Mbit/s, {trip:.0f} ms, loss {loss:.0%}": (
            Line(round_trip=trip / 1e3, rate=rate * MEGABIT, loss=loss),
            "reno",
        )
        for rate, loss in ((2, 0.0), (2, 0.01), (6, 0.0))
        for trip in (20, 80, 200)
    }
    return (
        lines
        | {
            "Reno, 6 Mbit/s, 200 ms, loss 1%": (Line(round_trip=0.2, rate=6 * MEGABIT, loss=0.01), "reno"),
            "Reno, 2 Mbit/s, 80 ms, queue of 300 ms": (
                Line(round_trip=0.08, rate=2 * MEGABIT, queue=0.3),
                "reno",
            ),
            "CUBIC, 4 Mbit/s, 80 ms, loss 0%": (Line(round_trip=0.08, rate=4 * MEGABIT), "cubic"),
        }
        | {
            f"its own kind, {rate} Mbit/s, {trip} ms": (Line(round_trip=trip / 1e3, rate=rate * MEGABIT), "")
            for rate in (2, 6)
            for trip in (20, 80, 200)
        }
    )


def lines_defiant() -> dict[str, tuple[Line, str | float]]:
    """Return the lines that are shared with flows which do not give way."""
    return {
        f"as BBR, 4 Mbit/s, {trip} ms": (Line(round_trip=trip / 1e3, rate=4 * MEGABIT), BANDWIDTH)
        for trip in (20, 80, 200)
    } | {
        f"fixed {rate} of 2 Mbit/s, {trip} ms": (
            Line(round_trip=trip / 1e3, rate=2 * MEGABIT),
            rate * MEGABIT,
        )
        for rate in (0.5, 1, 1.5)
        for trip in (80, 200)
    }


def lines_media() -> dict[str, Load]:
    """Return what is carried over which bottleneck."""
    jitter = Line(round_trip=0.08, jitter=0.02)
    return {
        "1 + 1 over 2 Mbit/s": Load(Line(round_trip=0.08, rate=2 * MEGABIT), 1),
        "1 + 1 over 2 Mbit/s, loss 2%": Load(Line(round_trip=0.08, rate=2 * MEGABIT, loss=0.02), 1),
        "1 + 1 over 2 Mbit/s, queue of 30 ms": Load(Line(round_trip=0.08, rate=2 * MEGABIT, queue=0.03), 1),
        "1 + 1 over 1.2 Mbit/s": Load(Line(round_trip=0.08, rate=1.2 * MEGABIT), 1),
        "1 + 1 over 1.2 Mbit/s, loss 2%": Load(Line(round_trip=0.08, rate=1.2 * MEGABIT, loss=0.02), 1),
        "1 + 1 beside Reno on 2 Mbit/s": Load(Line(round_trip=0.08, rate=2 * MEGABIT), 1, "reno"),
        "1 + 1 beside Reno on 4 Mbit/s": Load(Line(round_trip=0.08, rate=4 * MEGABIT), 1, "reno"),
        "1 + 1 over 4 Mbit/s, Reno on the way back": Load(
            Line(round_trip=0.08, rate=4 * MEGABIT, back_rate=4 * MEGABIT), 1, back_rival="reno"
        ),
        "3 + 3 into 2 Mbit/s": Load(Line(round_trip=0.08, rate=2 * MEGABIT), 3),
        "8 + 8 over 10 Mbit/s, loss 1%": Load(Line(round_trip=0.08, rate=10 * MEGABIT, loss=0.01), 8),
        "8 + 8 over 12 Mbit/s, Reno on the way back": Load(
            Line(round_trip=0.08, rate=12 * MEGABIT, back_rate=4 * MEGABIT), 8, back_rival="reno"
        ),
        "8 + 8 over 12 Mbit/s, sender stalls": Load(
            Line(round_trip=0.08, rate=12 * MEGABIT), 8, stalls=Stalls(length=0.03, every=0.1)
        ),
        "8 + 8, jitter of 20 ms each way": Load(jitter, 8),
        "8 + 8, the same, all at once": Load(jitter, 8, since=0.0),
        "8 + 8, 200 ms, jitter of 20 ms, all at once": Load(Line(round_trip=0.2, jitter=0.02), 8, since=0.0),
        "1 + 1, 80 ms, loss 2%": Load(Line(round_trip=0.08, loss=0.02), 1),
        "1 + 1, 80 ms, loss 5%": Load(Line(round_trip=0.08, loss=0.05), 1),
        "1 + 1, 200 ms, loss 5%, from the first": Load(Line(round_trip=0.2, loss=0.05), 1, since=0.0),
    }


def rows() -> list[Row]:
    """Return everything there is to tell."""
    found = []
    for controller in CONTROLLERS:
        for name, line in lines_alone().items():
            found.append(Row("alone", name, controller, partial(alone, line, controller)))
        for name, (line, rival) in lines_shared().items():
            found.append(
                Row("beside", name, controller, partial(beside, line, controller, rival or controller))
            )
        for name, (line, defiant) in lines_defiant().items():
            found.append(Row("against", name, controller, partial(beside, line, controller, defiant)))
        for trip in (20, 80, 200):
            for loss in (0.0, 0.02):
                line = Line(round_trip=trip / 1e3, loss=loss)
                name = f"{trip} ms, loss {loss:.0%}"
                found.append(Row("hole", name, controller, partial(after_hole, line, controller)))
        for name, load in lines_media().items():
            found.append(Row("media", name, controller, partial(tracks, load, controller)))
    return found


# --- telling -------------------------------------------------------------------------------------


def tell(row: Row, seeds: int) -> Figures:
    """Return a row's figures: means over the seeds, the worst of what is a time."""
    results = [row.story(seed) for seed in range(1, seeds + 1)]
    worst = {"queue_p95", "sound", "video_p99"} if row.part != "media" else {"video_p99"}
    if row.part == "hole":
        worst = {"sound", "video", "sound_missing", "video_missing"}
    return {
        name: (max if name in worst else fmean)([result[name] for result in results]) for name in results[0]
    }


def cell(part: str, figures: Figures) -> str:
    """Return what a table shows of a row for one controller."""
    match part:
        case "alone":
            return (
                f"{figures['share']:4.0%} {figures['queue']:3.0f}/{figures['queue_p95']:3.0f} ms"
                f" {figures['dropped']:4.1%}"
            )
        case "beside" | "against":
            told = f"{figures['share']:4.0%}:{figures['rival']:4.0%} {figures['queue_p95']:4.0f} ms"
            return f"{told}, alone {figures['rival_alone']:3.0%}" if "rival_alone" in figures else told
        case "hole":
            return (
                f"{figures['sound']:5.0f}/{figures['video']:5.0f} ms"
                f" {figures['sound_missing']:3.0f}/{figures['video_missing']:3.0f}"
            )
        case _:
            return (
                f"{figures['video']:5.1%} {figures['key']:4.0%} {figures['sound']:6.1%}"
                f" {figures['video_p99']:4.0f}"
            )


HEADS: Final = {
    "alone": "a greedy flow alone: share, queue median/p95, dropped",
    "beside": "beside another flow: shares, queue p95, what the other gets alone",
    "against": "beside a flow that does not give way: shares, queue p95",
    "hole": "after two silent seconds (worst seed): first sound/video in time, late or missing sound/video",
    "media": "media in time: video, key frames, sound, p99 of video in ms",
}


DRAWN: Final = {
    "alone": (("share", "share of the line", "%", 100), ("queue_p95", "time in its queue, p95", "ms", 110)),
    "beside": (("share", "share of the line", "%", 100), ("queue_p95", "time in its queue, p95", "ms", 300)),
    "against": (("share", "share of the line", "%", 100), ("queue_p95", "time in its queue, p95", "ms", 300)),
    "hole": (("sound", "first sound in time", "ms", 2000), ("video", "first picture in time", "ms", 2000)),
    "media": (("video", "video in time", "%", 100), ("sound", "sound in time", "%", 100)),
}
"""What the plots of each part show: figure, title, unit, top of the axis."""


def tell_all(results: Results, told: Mapping[tuple[str, str, str], Figures]) -> None:
    """Print a table and draw two panels for each part."""
    for part, head in HEADS.items():
        names = list(dict.fromkeys(name for each, name, _ in told if each == part))
        if not names:
            continue
        rows = [
            [name, *(cell(part, told[part, name, controller]) for controller in CONTROLLERS)]
            for name in names
        ]
        results.table((head, *CONTROLLERS), rows, part=part)
        panels = [
            Bars(
                title=title,
                unit=unit,
                names=names,
                series={
                    controller: [
                        told[part, name, controller][figure] * (100 if unit == "%" else 1) for name in names
                    ]
                    for controller in CONTROLLERS
                },
                top=top,
            )
            for figure, title, unit, top in DRAWN[part]
        ]
        results.draw([panels], title=head.partition(":")[0], part=part)


def summary(told: Mapping[tuple[str, str, str], Figures]) -> Figures:
    """Return what the last line says of our controller, and of Reno where it is compared."""

    def figures(part: str, controller: str = OURS) -> Sequence[Figures]:
        return [
            each for (its_part, _, whose), each in told.items() if (its_part, whose) == (part, controller)
        ]

    ratios = [each["share"] / each["rival"] for each in figures("beside") if "rival_alone" not in each]
    # Of what it could have had: half of what both got, or what the losses leave it when it is alone.
    kept = [
        each["rival"] / min(each["rival_alone"], (each["share"] + each["rival"]) / 2)
        for each in figures("beside")
        if "rival_alone" in each
    ]
    found: Figures = {
        "rows": len(told) / len(CONTROLLERS),
        "alone_share_min": min(each["share"] for each in figures("alone")),
        "alone_queue_p95_max_ms": max(each["queue_p95"] for each in figures("alone")),
        "beside_ratio_min": min(ratios),
        "beside_ratio_max": max(ratios),
        "beside_lossy_rival_kept_min": min(kept, default=math.nan),
        "hole_sound_max_ms": max(each["sound"] for each in figures("hole")),
        "hole_video_max_ms": max(each["video"] for each in figures("hole")),
        "media_video_mean": fmean(each["video"] for each in figures("media")),
        "media_sound_min": min(each["sound"] for each in figures("media")),
        "reno_media_video_mean": fmean(each["video"] for each in figures("media", "reno")),
        "reno_media_sound_min": min(each["sound"] for each in figures("media", "reno")),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def main() -> None:
    """Tell all stories, or those of one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2, help="of every story (default 2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: cores)")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, every fourth row: shows that it works"
    )
    Results.options(parser)
    options = parser.parse_args()
    results = Results.of("bottleneck", parser, options)
    chosen = rows()
    if options.quick:
        names = list(dict.fromkeys((row.part, row.name) for row in chosen))[::4]
        chosen = [row for row in chosen if (row.part, row.name) in names]
    seeds = 1 if options.quick else options.seeds
    told = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for row, each in zip(chosen, pool.map(partial(tell, seeds=seeds), chosen), strict=True):
            told[row.part, row.name, row.controller] = each
            print(f"{row.part}: {row.name}: {row.controller}: {cell(row.part, each)}", file=sys.stderr)
    tell_all(results, told)
    report("bottleneck", summary(told))


if __name__ == "__main__":
    main()
