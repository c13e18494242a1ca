from __future__ import annotations

import io

import pytest
from rich.console import Console

from lab.launcher.table import ClusterRow, LinkRow, ParticipantRow, Snapshot, bit_rate, line, render, summary
from lab.launcher.verdict import Verdict

SNAPSHOT = Snapshot(
    elapsed=12.34,
    doing="running",
    conference="lab-1",
    clusters=[
        ClusterRow(
            cluster="eu-west-1",
            region="eu-west",
            state="online",
            lease=4.25,
            bridge="running",
            restarts=0,
            local=1,
            remote=2,
            events=7,
            frames=300,
            bits=412_000,
        ),
        ClusterRow(
            cluster="us-east-1", region="us-east", state="lost", lease=None, bridge="backing off", restarts=2
        ),
    ],
    links=[LinkRow(dialer="us-east-1", listener="eu-west-1", state="up", age=9.6, attempts=1)],
    participants=[
        ParticipantRow(
            name="participant-eu-west", region="eu-west", publishes=True, state="running", frames=310
        ),
        ParticipantRow(
            name="participant-us-east",
            region="us-east",
            publishes=False,
            state="running",
            frames=299,
            rate=24.96,
            audio=600,
            p50=3.21,
            p99=9.87,
            dropped=1,
        ),
    ],
)


def shown(snapshot: Snapshot) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(render(snapshot))
    return console.export_text()


def test_the_live_view_shows_everything_that_is_known() -> None:
    text = shown(SNAPSHOT)
    for word in (
        "conference lab-1",
        "12 s",
        "eu-west-1",
        "online",
        "4.2 s left",
        "1 + 2",
        "lost",
        "backing off (restarts 2)",
        "412 kbit/s",
        "us-east-1 → eu-west-1",
        "p50 3.2 ms, p99 9.9 ms",
        "25.0",
    ):
        assert word in text


def test_the_live_view_of_nothing_is_only_headings() -> None:
    assert "starting control" in shown(Snapshot(elapsed=0, doing="starting control"))


def test_the_line_is_one_line() -> None:
    text = line(SNAPSHOT)
    assert "\n" not in text
    assert text == (
        " 12.3 s  running | clusters 1/2 | links up 1/1 | events 7 | frames 300 | 412 kbit/s | "
        "eu-west sent 310 | us-east decoded 299, delay p50 3.2 ms, p99 9.9 ms, dropped 1"
    )


def test_the_line_before_anything_is_known() -> None:
    assert line(Snapshot(elapsed=0, doing="starting")) == (
        "  0.0 s  starting | clusters 0/0 | links up 0/0 | events 0 | frames 0 | 0 bit/s"
    )


def test_the_summary_ends_with_the_verdict() -> None:
    lines = summary(SNAPSHOT, Verdict(good=True, reason="all numbers match", matched=299)).splitlines()
    assert lines[0] == "eu-west: published 310 pictures and 0 audio frames"
    assert lines[1].startswith(
        "us-east: decoded 299 pictures, received 600 audio frames, frame delay p50 3.2 ms"
    )
    assert lines[3].endswith("restarts 2")
    assert lines[-1] == "PASSED: 299 pictures were decoded in the other regions; all numbers match"
    assert summary(SNAPSHOT, Verdict(good=False, reason="us-east decoded no picture", matched=0)).endswith(
        "\nFAILED: us-east decoded no picture"
    )


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (64_000, "64 kbit/s"),
        (1_250_000, "1.2 Mbit/s"),
        (3e9, "3.0 Gbit/s"),
    ],
)
def test_bit_rates_are_readable(bits: float, text: str) -> None:
    assert bit_rate(bits) == text
