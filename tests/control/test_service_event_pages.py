"""Events over HTTP beside streams: pages, tokens, history, and the client that follows them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from causeway.api import ConferenceEvent, ConferenceState
from causeway.client import ControlClient
from causeway.errors import ApiError
from control.event_settings import EventSettings
from tests.control.event_streams import Stream, serving
from tests.control.service import running

# --- pages ------------------------------------------------------------------------------------


async def test_pages(database_url: str) -> None:
    async with serving(database_url) as served, ControlClient(served.url, served.key) as client:
        await served.service.create("c")
        for n in range(4):
            await served.write("c", n)
        first = await client.list_events("c", limit=2)
        assert ([each.seq for each in first.events], first.next, first.more) == ([1, 2], 2, True)
        rest = await client.list_events("c", after=first.next)
        assert ([each.seq for each in rest.events], rest.next, rest.more) == ([3, 4, 5], 5, False)
        none = await client.list_events("c", after=5)
        assert ([each.seq for each in none.events], none.next, none.more) == ([], 5, False)
        with pytest.raises(ApiError) as unknown:
            await client.list_events("none")
        assert unknown.value.type == "conference-unknown"
        async with served.service.engine.begin() as connection:
            await connection.execute(text("DELETE FROM conference_events WHERE seq < 3"))
        assert [each.seq for each in (await client.list_events("c")).events] == [3, 4, 5]
        for after in (1, 6):
            with pytest.raises(ApiError) as gone:
                await client.list_events("c", after=after)
            assert gone.value.type == "events-gone"


@pytest.mark.parametrize(
    ("query", "header"),
    [
        *((query, "") for query in ("after=-1", "after=x", "limit=0", "limit=1001", "x=1")),
        *(("", header) for header in ("1.5", "-1", "x" * 50)),
    ],
)
async def test_bad_questions(database_url: str, query: str, header: str) -> None:
    async with serving(database_url) as served:
        await served.service.create("c")
        async with served.stream("c", params=query, headers={"Last-Event-ID": header}) as stream:
            assert stream.answer.status_code == 422


# --- tokens -----------------------------------------------------------------------------------


async def test_a_join_answers_where_its_client_reads_events(database_url: str) -> None:
    async with serving(database_url) as served, served.service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        secret = {"id": "c", "metadata": {"tenant": "blue"}}
        await served.service.application.post("/v1/conferences", json=secret)
        key, path = {"Authorization": f"Bearer {served.key}"}, f"{served.url}/v1/conferences/c/join"
        joins = [(await served.http.post(path, json={"user": "u"}, headers=key)).json() for _ in range(2)]
        assert joins[0]["events"] == joins[1]["events"]
        where = joins[0]["events"]
        assert where.startswith(f"{served.url}/v1/conferences/c/events?token=")
        token = where.partition("token=")[2]
        for url, shown in (
            (where, {}),
            (where.partition("?")[0], {"Authorization": f"Bearer {token}"}),
        ):
            headers = {"Accept": "text/event-stream", **shown}
            async with served.http.stream("GET", url, headers=headers) as answer:
                assert answer.headers["access-control-allow-origin"] == "*"
                (snapshot,) = await Stream(answer).take(1)
                assert (snapshot["name"], snapshot["metadata"]) == ("snapshot", {})
        pages = (await served.http.get(where, headers={"Accept": "application/json"})).json()
        assert pages["events"][0]["kind"] == "conference.created"
        assert "metadata" not in pages["events"][0]["body"]
        async with ControlClient(served.url, served.key) as client:
            full = await client.list_events("c")
        assert full.events[0].body["metadata"] == {"tenant": "blue"}

        # Good for this, and for nothing else.
        await served.service.create("d")
        other = await served.http.get(f"{served.url}/v1/conferences/d/events?token={token}")
        assert (other.status_code, other.json()["type"]) == (403, "forbidden")
        for path in ("conferences/c", "conferences/c/history", "conferences"):
            refused = await served.http.get(
                f"{served.url}/v1/{path}", headers={"Authorization": f"Bearer {token}"}
            )
            assert refused.status_code == 401, path
        joined = joins[0]["token"]
        for bad in ("", "x", token[:-2] + "AA", joined):
            refused = await served.http.get(f"{served.url}/v1/conferences/c/events?token={bad}")
            assert (refused.status_code, refused.json()["type"]) == (401, "unauthenticated"), bad


async def test_clients_are_given_the_address_that_they_came_to(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("c")
        for host in ("one.example", "two.example:8443", "one.example"):
            joined = await service.application.post(
                "/v1/conferences/c/join", json={"user": "ada"}, headers={"Host": host}
            )
            assert joined.json()["events"].startswith(f"http://{host}/v1/conferences/c/events?token=")


async def test_the_public_address_is_what_clients_are_given(database_url: str) -> None:
    settings = EventSettings(public_url="https://control.example/x/")
    async with running(database_url, events=settings) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("c")
        answer = (await service.join("c")).json()
        assert answer["events"].startswith("https://control.example/x/v1/conferences/c/events?token=")


# --- the client -------------------------------------------------------------------------------


async def test_the_client_follows_through_ends_of_streams(database_url: str) -> None:
    settings = EventSettings(poll_interval=0.2, heartbeat=0.1, stream_life=1.0)
    async with (
        serving(database_url, events=settings) as served,
        ControlClient(served.url, served.key) as client,
    ):
        await served.service.create("c")
        seen: list[int] = []

        async def follow() -> None:
            async for told in client.follow_events("c"):
                assert isinstance(told, ConferenceState if not seen else ConferenceEvent)
                seen.append(told.seq)

        following = asyncio.create_task(follow())
        for n in range(25):
            await served.write("c", n)
            await asyncio.sleep(0.1)  # over the ends of two streams
        await served.service.application.delete("/v1/conferences/c")
        async with asyncio.timeout(20):
            await following
        assert seen == list(range(seen[0], seen[-1] + 1))
        assert seen[-1] == 28


async def test_history(database_url: str) -> None:
    async with serving(database_url) as served, served.service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await served.service.create("c")
        await served.service.join("c")
        await eu.enter("c", "p1", user="ada")
        await eu.enter("c", "p2", user="bob")
        await eu.report("DELETE", "/rooms/c/participants/p1")
        async with ControlClient(served.url, served.key) as client:
            told = (await client.list_events("c")).events
            now = await client.get_history("c")
            assert [each.user for each in now.participants] == ["bob"]
            first = next(each for each in told if each.kind == "participant.joined")
            then = await client.get_history("c", first.at)
            assert [each.user for each in then.participants] == ["ada"]
            assert then.seq >= first.seq
            for bad in ("2026-01-01T00:00:00", "yesterday"):
                answer = await served.service.application.get("/v1/conferences/c/history", params={"at": bad})
                assert answer.status_code == 422
            answer = await served.service.application.get(
                "/v1/conferences/c/history", params={"at": "2020-01-01T00:00:00Z"}
            )
            assert (answer.status_code, answer.json()["type"]) == (404, "conference-unknown")


async def test_a_token_is_in_no_log(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("for the log")

    async with serving(database_url) as served, served.service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await served.service.create("c")
        where = (await served.service.join("c")).json()["events"].replace("http://control.test", served.url)
        assert (await served.http.head(where)).status_code == 200
        monkeypatch.setattr("control.registry.histories.standing", broken)
        with capture_logs() as logged:
            answer = await served.http.get(where, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.json()["type"]) == (500, "internal-error")
        assert any(entry["event"] == "request.failed" for entry in logged)
        assert where.partition("token=")[2] not in str(logged)
