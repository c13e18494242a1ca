"""Event streams: what they begin with, how they resume, who is too slow, and when they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from control.errors import DatabaseUnavailableError
from control.event_settings import EventSettings
from control.registry import events
from control.registry.store import Store
from control.settings import HttpSettings
from tests.control.event_streams import serving
from tests.control.service import until

if TYPE_CHECKING:
    import pytest


async def test_a_stream_begins_with_what_is_and_goes_on_with_what_happens(database_url: str) -> None:
    async with serving(database_url) as served, served.service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await served.service.create("standup")
        await served.service.join("standup")
        await eu.enter("standup", "p1")
        async with served.stream("standup") as stream:
            assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.answer.headers["cache-control"] == "no-store"
            (snapshot,) = await stream.take(1)
            assert snapshot["name"] == "snapshot"
            assert [each["id"] for each in snapshot["participants"]] == ["p1"]
            (placed,) = snapshot["placements"]
            assert (placed["cluster"], placed["state"]) == ("eu-1", "ready")
            path = "/rooms/standup/streams/s1"
            body = {"participant": "p1", "tracks": [{"kind": "video", "codec": "vp8"}]}
            await eu.report("PUT", path, body)
            await eu.report("PUT", path, body)
            await eu.report("DELETE", "/rooms/standup/participants/p1")
            told = await stream.take(3)
            assert [each["name"] for each in told] == ["stream.added", "participant.left", "stream.removed"]
            assert [each["seq"] for each in told] == [snapshot["seq"] + n for n in (1, 2, 3)]
            assert told[0]["body"]["tracks"] == [{"kind": "video", "codec": "vp8"}]
            await served.service.application.delete("/v1/conferences/standup")
            last = []
            while (message := await stream.next()) is not None:
                last.append(message.name)
            assert last == ["conference.ending", "placement.removed", "conference.ended"]


async def test_a_reader_that_comes_again_misses_nothing(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")
        seen: list[int] = []
        after = 1
        for n in range(6):
            await served.write("c", n)
            async with served.stream("c", after=after) as stream:
                await served.write("c", n)
                for each in await stream.take(2):
                    seen.append(each["seq"])
                    after = each["seq"]
        assert seen == list(range(2, 14))
        # The header comes before the parameter, which stays in the URL of whoever comes again.
        async with served.stream("c", after=12, params={"after": "3"}) as stream:
            assert [each["seq"] for each in await stream.take(1)] == [13]
        async with served.stream("c", params={"after": "0"}) as stream:
            assert [each["seq"] for each in await stream.take(13)] == list(range(1, 14))


async def test_one_that_has_heard_the_end_is_told_not_to_come_again(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")
        await served.service.application.delete("/v1/conferences/c")
        async with served.stream("c", after=0) as stream:
            told = await stream.take(3)
            assert told[-1]["name"] == "conference.ended"
            assert await stream.next() is None
        async with served.stream("c", after=3) as stream:
            assert stream.answer.status_code == 204
        async with served.stream("c") as stream:
            assert stream.answer.status_code == 404
        async with served.stream("never", after=3) as stream:
            assert stream.answer.status_code == 404
        await served.service.create("c")
        async with served.stream("c", after=3) as stream:
            assert [each["name"] for each in await stream.take(1)] == ["conference.created"]


async def test_what_is_no_longer_kept_is_replaced_by_what_is(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")
        for n in range(5):
            await served.write("c", n)
        async with served.service.engine.begin() as connection:
            await connection.execute(text("DELETE FROM conference_events WHERE seq < 4"))
        for after in (1, 999):  # too old, and from a former life
            async with served.stream("c", after=after) as stream:
                (snapshot,) = await stream.take(1)
                assert (snapshot["name"], snapshot["seq"]) == ("snapshot", 6)
                await served.write("c", 9)
                (event,) = await stream.take(1)
                assert (event["seq"], event["body"]) == (7, {"n": 9})
            async with served.service.engine.begin() as connection:
                await connection.execute(text("DELETE FROM conference_events WHERE seq = 7"))
                await connection.execute(text("UPDATE conference_heads SET seq = 6"))


async def test_silence_is_filled_with_comments_and_a_life_is_limited(database_url: str) -> None:
    settings = EventSettings(poll_interval=0.2, heartbeat=0.05, stream_life=1.0)
    async with serving(database_url, events=settings) as served:
        await served.service.create("c")
        async with served.stream("c") as stream:
            await stream.take(1)
            assert await stream.next() is None
            assert stream.comments >= 2


async def test_readers_are_told_without_notices(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.delivery.feeds.Feeds.notice", lambda *_: None)
    async with serving(database_url) as served:
        await served.service.create("c")
        async with served.stream("c") as stream:
            await stream.take(1)
            await served.write("c", 1)
            assert [each["seq"] for each in await stream.take(1)] == [2]


async def test_many_readers_of_one_conference_read_the_database_once(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")

        async def read() -> list[int]:
            async with served.stream("c", after=0) as stream:
                return [each["seq"] for each in await stream.take(301)]

        readers = [asyncio.create_task(read()) for _ in range(20)]
        for n in range(300):
            await served.write("c", n)
        assert await asyncio.gather(*readers) == [list(range(1, 302))] * 20


async def test_a_slow_reader_is_a_slow_cursor_and_loses_nothing(database_url: str) -> None:
    settings = EventSettings(poll_interval=0.2, heartbeat=0.2, buffer=4)
    async with serving(database_url, events=settings) as served:
        await served.service.create("c")
        async with served.stream("c") as slow, served.stream("c") as quick:
            await slow.take(1)
            await quick.take(1)
            store = Store(served.service.engine)
            for _ in range(40):
                await store.write(events.write, "c", "participant.moved", {"filler": "x" * 20_000})
            assert [each["seq"] for each in await quick.take(40)] == list(range(2, 42))
            assert [each["seq"] for each in await slow.take(40)] == list(range(2, 42))


async def test_a_reader_that_takes_nothing_is_cut_off(database_url: str) -> None:
    settings = EventSettings(poll_interval=0.2, heartbeat=0.1, send_timeout=0.3, max_streams=1)
    async with serving(database_url, events=settings) as served:
        await served.service.create("c")
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(
            b"GET /v1/conferences/c/events?after=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
            b"Authorization: Bearer " + served.key.encode() + b"\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        store = Store(served.service.engine)
        for _ in range(60):
            await store.write(events.write, "c", "participant.moved", {"filler": "x" * 200_000})

        async def status() -> int:
            async with served.stream("c") as stream:
                return stream.answer.status_code

        assert await until(status, lambda seen: seen == 200) == 200
        writer.transport.abort()


async def test_there_is_room_for_so_many_streams_and_everything_else(database_url: str) -> None:
    settings = EventSettings(poll_interval=0.2, heartbeat=0.1, max_streams=3)
    async with serving(database_url, events=settings, http=HttpSettings(max_requests=2)) as served:
        await served.service.create("c")
        async with served.stream("c") as one, served.stream("c") as two, served.stream("c") as three:
            for stream in (one, two, three):
                await stream.take(1)
            async with served.stream("c") as refused:
                assert refused.answer.status_code == 503
                await refused.answer.aread()
                assert refused.answer.json()["type"] == "overloaded"
            answer = await served.http.get(f"{served.url}/healthz")
            assert answer.status_code == 200

        async def status() -> int:
            async with served.stream("c") as stream:
                return stream.answer.status_code

        assert await until(status, lambda seen: seen == 200) == 200


async def test_streams_end_when_the_process_is_about_to_stop(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")
        async with served.stream("c") as stream:
            await stream.take(1)
            served.service.control.stopping()
            assert await stream.next() is None


async def test_a_database_that_is_away_for_a_while_only_delays(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = events.tails, iter([True, True])

    async def tails(*args: Any, **options: Any) -> Any:
        if next(failures, False):
            raise DatabaseUnavailableError("away", retry_after=1)
        return await real(*args, **options)

    monkeypatch.setattr(events, "tails", tails)
    async with serving(database_url) as served:
        await served.service.create("c")
        async with served.stream("c") as stream:
            await stream.take(1)
            for n in range(2, 6):
                await served.write("c", n)
                assert [each["seq"] for each in await stream.take(1)] == [n]
        assert next(failures, None) is None
