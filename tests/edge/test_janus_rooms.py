"""A real Janus server and the cluster that it is, without central service and media: who is in which room."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bridges.wire.objects import Participant, Stream, StreamInfo, StreamMedia, Track
from edge.janus.connector import Connector, JanusUnavailableError, running_connector
from edge.janus.messages import (
    AddRemotePublisher,
    Allow,
    CreateRoom,
    DestroyRoom,
    ListParticipants,
    Offered,
    RoomView,
)
from edge.janus.names import RoomNames
from edge.janus.settings import JanusSettings
from edge.settings import EdgeSettings, Settings
from lab.room_options import RoomOptions
from lab.settings import LabSettings
from lab.tokens import Admission
from tests.edge.janus_person import JanusPerson
from tests.edge.janus_server import ADMIN_KEY, API_SECRET, JanusServer, janus_server
from tests.lab.cluster_kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from edge.janus.client import Room

KEY = "service key"


@pytest.fixture(scope="module")
def server() -> Iterator[JanusServer]:
    with janus_server() as there:
        yield there


@asynccontextmanager
async def running(server: JanusServer, **changes: Any) -> AsyncIterator[Connector]:
    janus: dict[str, Any] = {
        "url": server.url,
        "api_secret": API_SECRET,
        "admin_key": ADMIN_KEY,
        "call_timeout": 5.0,
        "refusal_pause": 0.1,
    }
    settings = Settings(
        lab=LabSettings(cluster="here", service_key=KEY),
        edge=EdgeSettings(janus=JanusSettings(**(janus | changes))),
    )
    async with running_connector(settings) as connector:
        await until(lambda: connector.client is not None)
        yield connector


@pytest_asyncio.fixture
async def connector(server: JanusServer) -> AsyncIterator[Connector]:
    async with running(server) as there:
        yield there
        with contextlib.suppress(JanusUnavailableError):
            for record in there.cluster.rooms.records:
                there.cluster.rooms.delete(record.id)


async def invited(connector: Connector, user: str = "ada", **changes: str) -> str:
    who: dict[str, str] = {"room": "standup", "user": user, "role": "presenter"} | changes
    return await connector.cluster.management.issue(Admission(**who))


async def handle(connector: Connector) -> Room:
    assert connector.client is not None
    return await connector.client.attach(on_news=lambda: None)


async def in_server(connector: Connector, conference: str = "standup") -> RoomView:
    room = await handle(connector)
    return await room.ask(ListParticipants(room=names(conference).room))


def names(conference: str = "standup") -> RoomNames:
    return RoomNames.of(conference, key=KEY, string_ids=False)


def users(connector: Connector) -> list[tuple[str, str]]:
    running = connector.cluster.rooms.get_running("standup")
    return [] if running is None else [(one.user, one.role) for one in running.room.local_participants]


async def test_who_joins_the_server_is_in_the_cluster_until_they_leave(connector: Connector) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
    async with JanusPerson(await invited(connector, role="viewer"), "call me Ada") as ada:
        await until(lambda: users(connector) == [("ada", "viewer")])
        with pytest.raises(AssertionError, match="nauthorized"):  # a token is good for one
            async with JanusPerson(_token_of(ada), "Eve"):
                pass
        await ada.leave()
        await until(lambda: users(connector) == [])


def _token_of(person: JanusPerson) -> str:
    import json  # noqa: PLC0415
    from base64 import b64encode  # noqa: PLC0415

    return b64encode(json.dumps({"janus": person.invitation | {"id": 4}}).encode()).decode()


async def test_who_is_sent_away_by_the_cluster_is_sent_away_by_the_server(connector: Connector) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
    async with JanusPerson(await invited(connector), "Ada"):
        await until(lambda: users(connector) != [])
        (there,) = connector.cluster.rooms.running
        (participant,) = there.room.local_participants
        connector.cluster.rooms.act("standup", lambda room: room.leave(participant.id))

        async def displays() -> list[str | None]:
            return [one.display for one in (await in_server(connector)).participants]

        async with asyncio.timeout(5):
            while "Ada" in await displays():
                pass
        assert users(connector) == []


async def test_streams_of_others_are_shown_while_somebody_is_there(connector: Connector) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
    async with JanusPerson(await invited(connector), "Ada") as ada:
        await until(lambda: users(connector) != [])
        bob = Participant(id="bob-1", user="bob", role="presenter")
        tracks = [Track(id="v", type="video", format={"codec": "vp8"})]
        stream = Stream(
            id="s1", media=StreamMedia(tracks=tracks), info=StreamInfo(owner="bob-1"), cluster="there"
        )
        there = {"participants": {"bob-1": bob}, "streams": {"s1": stream}}
        room = connector.cluster.rooms
        room.act("standup", lambda one: one.cascading_event("bridge", "there", "initialize", there))
        await ada.until(lambda: ada.named("bob") is not None)
        assert connector.client is not None
        connector.client.lose("for a test")
        feed = ada.named("bob")
        await until(lambda: connector.client is not None)
        room.act("standup", lambda one: one.cascading_event("bridge", "there", "removeStream", "s1"))
        await ada.until(lambda: ada.named("bob") is None)
        room.act("standup", lambda one: one.cascading_event("bridge", "there", "addStream", stream))
        await ada.until(lambda: ada.named("bob") not in {None, feed})
    await until(lambda: users(connector) == [])
    async with asyncio.timeout(5):
        while any(one.remote for one in (await in_server(connector)).participants):
            pass


async def test_a_room_that_somebody_has_removed_is_made_again(connector: Connector) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
    token = await invited(connector)
    room = await handle(connector)
    await room.ask(DestroyRoom(room=names().room, secret=names().secret))
    async with asyncio.timeout(5):
        while True:  # also the tokens that were given out
            with contextlib.suppress(AssertionError):
                async with JanusPerson(token, "Ada"):
                    await until(lambda: users(connector) == [("ada", "presenter")])
                    break


async def test_what_the_cluster_refuses_is_tried_again_and_holds_up_nobody(connector: Connector) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup", participant_limit=1))
    async with JanusPerson(await invited(connector, "ada"), "Ada") as ada:
        await until(lambda: users(connector) == [("ada", "presenter")])
        async with JanusPerson(await invited(connector, "bob"), "Bob"):
            async with asyncio.timeout(5):
                while len((await in_server(connector)).participants) < 3:
                    pass
            assert users(connector) == [("ada", "presenter")]
            await ada.leave()
            await until(lambda: users(connector) == [("bob", "presenter")])


async def test_what_a_former_start_has_left_is_found(server: JanusServer) -> None:
    async with running(server) as former:
        former.cluster.rooms.create("standup", RoomOptions(id="standup"))
        former.cluster.rooms.create("forgotten", RoomOptions(id="forgotten"))
        await invited(former)
        await invited(former, room="forgotten")
        room = await handle(former)
        left = AddRemotePublisher(
            room=names().room,
            secret=names().secret,
            id=9,
            display="left over",
            streams=[Offered(type="video", mindex=0, mid="0", codec="vp8")],
        )
        await room.ask(left)
        mine = CreateRoom(
            room=12,
            description="standup",
            secret="of somebody else",
            pin="",
            allowed=[],
            publishers=1,
            audiocodec="opus",
            videocodec="vp8",
            is_private=True,
            notify_joining=True,
            permanent=False,
            admin_key=ADMIN_KEY,
        )
        await room.ask(mine)
    async with running(server, leftover_after=0.2) as connector:
        connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
        async with JanusPerson(await invited(connector), "Ada") as ada:
            assert ada.named("left over") is None
        room = await handle(connector)
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(Exception):
                    await room.ask(ListParticipants(room=names("forgotten").room))
                    continue
                break
        await room.ask(ListParticipants(room=12))  # not ours


async def test_without_the_server_nobody_is_invited(connector: Connector, server: JanusServer) -> None:
    connector.cluster.rooms.create("standup", RoomOptions(id="standup"))
    with pytest.raises(JanusUnavailableError):
        await invited(connector, room="another")
    await invited(connector)  # by then the server has the room
    room = await handle(connector)
    await room.ask(Allow(room=names().room, secret=names().secret, action="add", allowed=["x"]))
    server.kill()
    try:
        await until(lambda: connector.client is None)
        with pytest.raises(JanusUnavailableError):
            await invited(connector)
    finally:
        server.start()
    await until(lambda: connector.client is not None)
    await invited(connector)
