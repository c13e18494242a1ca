from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from lab.portal_client import Address, PortalClient, PortalClosedError, PortalRefusedError, TrackOffer
from tests.lab.portal_stub import TOKEN, PortalStub

if TYPE_CHECKING:
    from collections.abc import Awaitable

SOURCE = Address("127.0.0.1", 9)
VIDEO = TrackOffer(id="v1", type="video", format={"codec": "vp8"})


async def test_join_tells_who_and_what_is_there() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        joined = await portal.join(TOKEN)
        assert joined.room == "room-1"
        assert joined.internal == Address("127.0.0.1", stub.listener.port)
        assert [one.id for one in joined.participants] == [joined.participant]
        assert joined.streams == []


async def test_a_wrong_token_is_refused_and_the_connection_stays() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        with pytest.raises(PortalRefusedError, match=r"^join: bad-token: no such token$"):
            await portal.join("wrong")
        assert (await portal.join(TOKEN)).participant


async def test_publishing_goes_through_and_is_told_to_others() -> None:
    async with (
        PortalStub() as stub,
        await PortalClient.connect(stub.url) as one,
        await PortalClient.connect(stub.url) as other,
    ):
        await one.join(TOKEN)
        await other.join(TOKEN)
        published = await one.publish([VIDEO], SOURCE)
        assert [(track.id, track.type) for track in published.tracks] == [("v1", "video")]
        assert stub.called("publish")[0]["source"] == {"ip": "127.0.0.1", "port": 9}
        event = await other.next_event()
        assert event.event == "streamAdded"
        assert event.data["id"] == published.stream
        await one.unpublish(published.stream)
        event = await other.next_event()
        assert (event.event, event.data) == ("streamRemoved", {"id": published.stream})
        with pytest.raises(PortalRefusedError, match="unsubscribe: unknown"):
            await other.unsubscribe("nothing")
        await one.leave()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("no", "subscribe: no"),
        (None, "subscribe: refused"),
        ({"odd": 1}, "subscribe: refused"),
        ({"code": "x"}, ": x$"),
    ],
)
async def test_every_form_of_refusal_is_one_line(error: object, text: str) -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        stub.refuse["subscribe"] = error
        with pytest.raises(PortalRefusedError, match=text):
            await portal.subscribe("s", ["video"])


@pytest.mark.parametrize(
    "data", [None, {}, {"subscription": 1, "tracks": []}, {"subscription": "s", "tracks": [{}]}]
)
async def test_an_answer_of_another_shape_is_refused(data: object) -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        stub.answers["subscribe"] = data
        with pytest.raises(PortalRefusedError, match="another shape"):
            await portal.subscribe("s", ["video"])


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(PortalClosedError, match=f"portal ws://127.0.0.1:{port}/portal: "):
            await PortalClient.connect(f"ws://127.0.0.1:{port}/portal")


async def test_somebody_who_does_not_speak_websocket() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-nonsense\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        with pytest.raises(PortalClosedError):
            await PortalClient.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/portal")


async def test_a_portal_that_never_opens_is_given_up() -> None:
    hold = asyncio.Event()

    async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with server:
        with pytest.raises(PortalClosedError):
            await PortalClient.connect(
                f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/portal", open_timeout=0.2
            )
        hold.set()


async def test_a_call_without_answer_ends_the_connection() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url, call_timeout=0.2) as portal:
        stub.mute.add("subscribe")
        with pytest.raises(PortalClosedError, match=r"did not answer subscribe within 0\.2 s"):
            await portal.subscribe("s", ["video"])
        with pytest.raises(PortalClosedError, match="did not answer subscribe"):
            await portal.next_event()
        with pytest.raises(PortalClosedError):
            await portal.leave()


async def test_a_dead_connection_fails_the_calls_and_the_events() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        await portal.join(TOKEN)
        stub.mute.add("leave")
        async with asyncio.timeout(10):
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(_error_of(portal.leave()))
                event = tasks.create_task(_error_of(portal.next_event()))
                await stub.until(lambda: stub.called("leave"))
                await stub.drop_connections()
            assert isinstance(call.result(), PortalClosedError)
            assert isinstance(event.result(), PortalClosedError)


async def _error_of(work: Awaitable[object]) -> BaseException | None:
    try:
        await work
    except PortalClosedError as error:
        return error
    return None


async def test_events_before_the_end_are_not_lost() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        await portal.join(TOKEN)
        for number in range(3):
            await stub.push("participantLeft", {"id": str(number)})
        await portal.leave()  # answered after the events
        await stub.drop_connections()
        assert [(await portal.next_event()).data["id"] for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(PortalClosedError):
            await portal.next_event()
        with pytest.raises(PortalClosedError):
            await portal.next_event()


async def test_too_many_events_that_nobody_takes_end_the_connection() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url, max_events=10) as portal:
        await portal.join(TOKEN)
        for number in range(11):
            await stub.push("participantLeft", {"id": str(number)})
        await stub.until(lambda: not stub.connections)
        for _ in range(10):
            await portal.next_event()
        with pytest.raises(PortalClosedError, match="too many events"):
            await portal.next_event()


@pytest.mark.parametrize("data", ["", "nonsense", "[]", '{"id": "x"}', b"\xff\xfe", '{"event": 5}'])
async def test_nonsense_ends_the_connection(data: str | bytes) -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        await portal.join(TOKEN)
        await stub.send_raw(data)
        async with asyncio.timeout(10):
            with pytest.raises(PortalClosedError, match="no message"):
                await portal.next_event()


@pytest.mark.parametrize("data", ["{}", '{"id": 999, "ok": true}', '{"news": 1}'])
async def test_what_concerns_nobody_is_ignored(data: str) -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        await portal.join(TOKEN)
        await stub.send_raw(data)
        await portal.leave()


async def test_a_cancelled_call_leaves_the_connection_usable() -> None:
    async with PortalStub() as stub, await PortalClient.connect(stub.url) as portal:
        stub.mute.add("leave")
        leaving = asyncio.create_task(portal.leave())
        await stub.until(lambda: stub.called("leave"))
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await stub.send_raw('{"id": 1, "ok": true}')  # the late answer
        assert (await portal.join(TOKEN)).participant
