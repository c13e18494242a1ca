"""A participant without its process: a real portal, real encoding, real TCP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bridges.internal.listener import InternalListener
from causeway.backoff import Backoff
from causeway.errors import ApiError, UnavailableError
from lab import reports
from lab.attendance import Attendance
from lab.media.source import GeneratedSource
from lab.portal_client import PortalRefusedError
from lab.publication import Publication
from lab.watching import Watch
from tests.lab.portal_stub import PortalStub, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import ThreadPoolExecutor

    from causeway.api import JoinAnswer
    from lab.reports import Line


WIDTH, HEIGHT = 320, 180


class Stay:
    """A participant without its process."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.attendance: Attendance
        self.task: asyncio.Task[None]
        self.decoded: list[tuple[int, int]] = []
        self.sent: list[tuple[int, int]] = []
        self._said = asyncio.Event()

    def say(self, line: Line) -> None:
        self.lines.append(line)
        self._said.set()

    def said(self, kind: type[Line]) -> list[Line]:
        return [line for line in self.lines if isinstance(line, kind)]

    async def until_said(self, kind: type[Line], count: int = 1) -> None:
        async with asyncio.timeout(15):
            while len(self.said(kind)) < count:
                self._said.clear()
                await self._said.wait()

    async def until(self, condition: Callable[[reports.Report], bool]) -> reports.Report:
        """Look at the report ten times a second: what the process writes once a second."""
        async with asyncio.timeout(15):
            while True:
                report = self.attendance.report()
                if report.published is not None:
                    self.sent += report.published.numbers
                for received in report.received.values():
                    self.decoded += received.numbers
                if condition(report):
                    return report
                await asyncio.sleep(0.1)


def decoded_more_than(count: int) -> Callable[[reports.Report], bool]:
    return lambda report: sum(one.decoded for one in report.received.values()) > count


@asynccontextmanager
async def staying(
    portal: PortalStub,
    thread: ThreadPoolExecutor,
    *,
    publish: bool = False,
    subscribe: bool = False,
    answers: list[JoinAnswer | Exception] | None = None,
    join_timeout: float = 30.0,
) -> AsyncIterator[Stay]:
    stay = Stay()
    left = list(answers or [])

    async def join() -> JoinAnswer:
        answer = left.pop(0) if left else place(portal)
        if isinstance(answer, Exception):
            raise answer
        return answer

    listener = await InternalListener.start()
    publication = Publication(
        GeneratedSource(WIDTH, HEIGHT),
        listener=listener,
        host="127.0.0.1",
        width=WIDTH,
        height=HEIGHT,
        fps=20,
        video_bitrate=300_000,
    )
    stay.attendance = Attendance(
        join=join,
        say=stay.say,
        publication=publication if publish else None,
        watch=Watch(say=stay.say, thread=thread) if subscribe else None,
        join_timeout=join_timeout,
        backoff=Backoff(base=0.05, cap=0.1),
    )
    stay.task = asyncio.create_task(stay.attendance.run())
    encoding = asyncio.create_task(publication.run())
    try:
        yield stay
    finally:
        for task in (stay.task, encoding):
            task.cancel()
            await asyncio.wait([task])
        await listener.close()


async def test_pictures_go_from_one_to_the_other(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True) as one,
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(30))
        (received,) = report.received.values()
        assert report.role == "subscriber"
        assert received.from_cluster == "far"
        assert received.unreadable == 0
        assert received.audio_decoded > 30
        assert 0 < len(other.decoded) <= 1024
        sent = await one.until(lambda report: report.published is not None)
        assert sent.published is not None
        assert sent.role == "publisher"
        assert sent.published.key_frames >= 1
        assert set(other.decoded) <= set(one.sent)


async def test_nothing_is_encoded_while_nobody_pulls(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, publish=True) as one:
        await portal.until(lambda: portal.called("publish"))
        async with staying(portal, thread, subscribe=True) as other:
            await other.until(decoded_more_than(3))
        # The last subscriber has left: from now on the count stands still.
        await portal.until(lambda: not portal.subscriptions)
        before = await one.until(lambda report: report.published is not None)
        first = before.published
        async with staying(portal, thread, subscribe=True) as other:
            await other.until(decoded_more_than(3))
        after = (await one.until(lambda report: report.published is not None)).published
        assert first is not None
        assert after is not None
        assert after.key_frames > first.key_frames


async def test_one_does_not_receive_its_own_stream(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True, subscribe=True) as one,
        staying(portal, thread, publish=True, subscribe=True) as other,
    ):
        report = await one.until(decoded_more_than(3))
        assert report.role == "both"
        assert len(report.received) == 1
        await other.until(decoded_more_than(3))
        assert len(portal.streams) == 2


async def test_a_stream_that_comes_back_is_received_again(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True),
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(3))
        ((stream, received),) = report.received.items()
        await portal.remove_stream(stream)
        await other.until_said(reports.StreamRemoved)
        assert not other.attendance.report().received[stream].active
        await portal.add_stream(stream)
        await other.until_said(reports.StreamAdded, 2)
        report = await other.until(decoded_more_than(received.decoded + 20))
        assert report.received[stream].subscriptions == 2
        assert report.received[stream].active


@pytest.mark.parametrize("trouble", ["subscription ended", "connection lost"])
async def test_a_lost_subscription_is_made_anew(thread: ThreadPoolExecutor, trouble: str) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True),
        staying(portal, thread, subscribe=True) as other,
    ):
        report = await other.until(decoded_more_than(3))
        (received,) = report.received.values()
        if trouble == "subscription ended":
            await portal.end_subscriptions()
        else:
            portal.break_frames()
        report = await other.until(decoded_more_than(received.decoded + 20))
        (received,) = report.received.values()
        assert received.subscriptions == 2
        assert len(portal.called("unsubscribe")) == (trouble == "connection lost")


async def test_a_refused_subscription_is_tried_again(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, publish=True):
        portal.refuse["subscribe"] = "not now"
        async with staying(portal, thread, subscribe=True) as other:
            await portal.until(lambda: len(portal.called("subscribe")) >= 2)
            portal.refuse.clear()
            await other.until(decoded_more_than(3))


async def test_a_lost_portal_is_left_for_another_place(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as first, PortalStub() as second:
        answers: list[JoinAnswer | Exception] = [place(first), place(second, region="us-east")]
        async with (
            staying(second, thread, publish=True),
            staying(first, thread, subscribe=True, answers=answers) as other,
        ):
            await other.until_said(reports.Joined)
            await first.drop_connections()
            await other.until_said(reports.Disconnected)
            await other.until_said(reports.Joined, 2)
            report = await other.until(decoded_more_than(3))
            assert report.cluster == "cluster-us-east"
            assert report.region == "us-east"


async def test_a_publisher_that_joined_anew_publishes_new_tracks(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, publish=True) as one,
        staying(portal, thread, subscribe=True) as other,
    ):
        await other.until(decoded_more_than(3))
        await portal.drop_connections()
        await one.until_said(reports.Joined, 2)
        await other.until_said(reports.Joined, 2)
        report = await other.until(
            lambda report: sum(one.active and one.decoded > 3 for one in report.received.values()) == 1
        )
        assert len(report.received) == 2
        tracks = [track["id"] for call in portal.called("publish") for track in call["tracks"]]
        assert len(set(tracks)) == 4
        # Numbers go on: no picture has another's name.
        numbers = [number for number, _ in other.decoded]
        assert len(numbers) == len(set(numbers))


async def test_what_may_pass_is_tried_again(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal:
        answers: list[JoinAnswer | Exception] = [
            UnavailableError("not there"),
            ApiError(503, "no-cluster", "none"),
            place(portal, token="stale"),
        ]
        async with staying(portal, thread, subscribe=True, answers=answers) as one:
            await one.until_said(reports.Joined)
            errors = [line.error for line in one.lines if isinstance(line, reports.JoinFailed)]
            assert errors == ["not there", "503 no-cluster: none", "join: bad-token: no such token"]


async def test_what_cannot_pass_is_not_tried_again(thread: ThreadPoolExecutor) -> None:
    async with (
        PortalStub() as portal,
        staying(portal, thread, subscribe=True, answers=[ApiError(404, "no-such-conference", "gone")]) as one,
    ):
        with pytest.raises(ApiError, match="no-such-conference"):
            await asyncio.wait_for(one.task, 10)


async def test_a_first_join_is_given_up(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal:
        portal.refuse["join"] = "full"
        async with staying(portal, thread, subscribe=True, join_timeout=0.0) as one:
            with pytest.raises(PortalRefusedError, match="join: full"):
                await asyncio.wait_for(one.task, 10)


@pytest.mark.parametrize("data", [None, {}, "text", {"id": "s"}])
async def test_an_announced_stream_that_is_none_ends_the_stay(
    thread: ThreadPoolExecutor, data: object
) -> None:
    async with PortalStub() as portal, staying(portal, thread, subscribe=True) as one:
        await one.until_said(reports.Joined)
        await portal.push("streamAdded", data)
        await one.until_said(reports.Disconnected)
        (line,) = one.said(reports.Disconnected)
        assert isinstance(line, reports.Disconnected)
        assert "what is no stream" in line.error
        await one.until_said(reports.Joined, 2)


async def test_leaving_is_polite_even_to_a_portal_that_does_not_answer(thread: ThreadPoolExecutor) -> None:
    async with PortalStub() as portal, staying(portal, thread, subscribe=True) as one:
        await one.until_said(reports.Joined)
        portal.mute.add("leave")
        one.task.cancel()
        await asyncio.wait([one.task], timeout=10)
        assert one.task.cancelled()
        assert len(portal.called("leave")) == 1
        assert isinstance(one.lines[-1], reports.Left)
