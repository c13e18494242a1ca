from __future__ import annotations

from lab import reports
from lab.launcher.scoreboard import Scoreboard
from lab.reports import Number, Published, Received, Report


def published(t: float, frames: int, numbers: list[Number] | None = None, audio: int = 0) -> bytes:
    report = Report(
        t=t,
        role="publisher",
        participant="p",
        cluster="eu-west-1",
        region="eu-west",
        published=Published(frames=frames, audio_frames=audio, bytes=frames * 10, numbers=numbers or []),
        received={},
    )
    return reports.encode(report)


def received(t: float, streams: dict[str, Received]) -> bytes:
    report = Report(
        t=t,
        role="subscriber",
        participant="s",
        cluster="us-east-1",
        region="us-east",
        published=None,
        received=streams,
    )
    return reports.encode(report)


def stream(
    decoded: int,
    numbers: list[Number] | None = None,
    delays: list[float] | None = None,
    cluster: str = "eu-west-1",
) -> Received:
    return Received(
        from_cluster=cluster,
        decoded=decoded,
        audio_frames=2 * decoded,
        bytes=5 * decoded,
        skipped=1,
        unreadable=1,
        numbers=numbers or [],
        delays_ms=delays or [],
    )


def board() -> Scoreboard:
    scoreboard = Scoreboard()
    scoreboard.add("pub", region="eu-west", publishes=True)
    scoreboard.add("sub", region="us-east", publishes=False)
    return scoreboard


def test_what_is_sent_and_decoded_reaches_the_ledger() -> None:
    scoreboard = board()
    scoreboard.take("pub", published(1.0, 2, [(0, 100), (1, 3100)]))
    scoreboard.take("sub", received(1.5, {"s1": stream(2, [(0, 100), (1, 3100)], [4.0, 6.0])}))
    assert scoreboard.ledger.judge().good
    assert scoreboard.ledger.judge().matched == 2
    score = scoreboard.scores["sub"]
    assert (score.frames, score.audio, score.dropped, score.bytes) == (2, 4, 2, 10)
    assert (score.percentile(0.5), score.percentile(0.99)) == (6.0, 6.0)


def test_counters_add_up_over_restarts_and_streams() -> None:
    scoreboard = board()
    scoreboard.take("sub", received(1.0, {"s1": stream(10)}))
    scoreboard.take("sub", received(2.0, {"s1": stream(30)}))
    scoreboard.take("sub", received(3.0, {"s1": stream(30), "s2": stream(5)}))
    scoreboard.take("sub", received(4.0, {"s2": stream(6)}))
    score = scoreboard.scores["sub"]
    assert score.frames == 36
    score.started()
    scoreboard.take("sub", received(9.0, {"s2": stream(7)}))
    assert score.frames == 43


def test_rates_are_between_two_reports_of_one_process() -> None:
    scoreboard = board()
    score = scoreboard.scores["pub"]
    scoreboard.take("pub", published(1.0, 10))
    assert score.rate == 0.0
    scoreboard.take("pub", published(3.0, 60))
    assert score.rate == 25.0
    score.started()
    assert score.rate == 0.0
    scoreboard.take("pub", published(9.0, 5))
    assert score.rate == 0.0
    assert score.frames == 65


def test_what_comes_from_the_own_cluster_does_not_count() -> None:
    scoreboard = board()
    scoreboard.take("sub", received(1.0, {"s1": stream(10, [(1, 1)], [1.0], cluster="us-east-1")}))
    score = scoreboard.scores["sub"]
    assert (score.frames, score.percentile(0.5)) == (0, None)
    assert not scoreboard.ledger.judge().good


def test_the_longest_gap_is_between_captures_and_survives_the_clocks_wrap() -> None:
    scoreboard = board()
    score = scoreboard.scores["sub"]
    start = (1 << 32) - 45_000
    scoreboard.take("sub", received(1.0, {"s1": stream(1, [(0, start)])}))
    scoreboard.take("sub", received(2.0, {"s1": stream(2, [(1, 45_000)])}))
    assert score.longest_gap == 1.0
    scoreboard.take("sub", received(3.0, {"s1": stream(3, [(0, 45_000 - 90)])}))
    assert score.longest_gap == 1.0


def test_joined_follows_the_process() -> None:
    scoreboard = board()
    score = scoreboard.scores["sub"]
    joined = reports.Joined(t=1.0, participant="s", cluster="us-east-1", region="us-east", room="r")
    scoreboard.take("sub", reports.encode(joined))
    assert bool(score.joined) is True
    lost = reports.Disconnected(t=2.0, participant="s", cluster="us-east-1", error="gone", retry_in=0.1)
    scoreboard.take("sub", reports.encode(lost))
    assert bool(score.joined) is False
    scoreboard.take("sub", reports.encode(joined))
    score.started()
    assert bool(score.joined) is False


def test_streams_that_went_are_remembered() -> None:
    scoreboard = board()
    removed = reports.StreamRemoved(t=7.5, stream="s1", from_cluster="eu-west-1")
    assert scoreboard.take("sub", reports.encode(removed)) == removed
    assert scoreboard.scores["sub"].lost_at == [7.5]


def test_what_is_no_report_is_counted() -> None:
    scoreboard = board()
    assert scoreboard.take("sub", b"Traceback (most recent call last):\n") is None
    assert scoreboard.take("sub", b'{"event": "unheard-of", "t": 1}\n') is None
    assert scoreboard.garbled == 2
