from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from causeway.api import RoomOptions
from control.drivers.base import (
    BusyError,
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    Health,
    MalformedAnswerError,
    NotSupportedError,
    RecordingNotFoundError,
    RequestRefusedError,
    RoomNotFoundError,
    RoomParticipant,
    UnreachableError,
)
from control.drivers.openvidu import ROLES, OpenViduConnections, OpenViduDriver
from tests.control.openvidu_stub import OpenViduStub, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine


OPTIONS = RoomOptions()


@pytest.fixture
async def stub() -> AsyncIterator[OpenViduStub]:
    async with OpenViduStub() as stub:
        yield stub


@pytest.fixture
async def pro() -> AsyncIterator[OpenViduStub]:
    async with OpenViduStub(pro=True) as stub:
        stub.media_nodes = {name: media_node(name) for name in ("media_1", "media_2")}
        yield stub


@pytest.fixture
async def openvidu() -> AsyncIterator[OpenViduConnections]:
    async with OpenViduConnections() as connections:
        yield connections


def driver_of(openvidu: OpenViduConnections, stub: OpenViduStub) -> OpenViduDriver:
    return openvidu.driver(rest_url=stub.url, service_key=stub.service_key)


def media_node(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "mediaNode",
        "environmentId": f"container_{name}",
        "ip": "192.0.2.9",
        "uri": "ws://192.0.2.9:8888/kurento",
        "connected": True,
        "connectionTime": 1_700_000_000_000,
        "load": 12.5,
        "status": "running",
    }


async def join(driver: OpenViduDriver, stub: OpenViduStub, user: str, *, streams: int = 0) -> str:
    """Have a user really join room-1; return the connection's id."""
    before = set(stub.connections["room-1"])
    await driver.create_token("room-1", user=user, role="presenter", region="eu")
    [connection] = set(stub.connections["room-1"]) - before
    stub.join("room-1", connection, streams=streams)
    return connection


# --- health -----------------------------------------------------------------------------------


async def test_health_of_a_pro_cluster(openvidu: OpenViduConnections, pro: OpenViduStub) -> None:
    driver = driver_of(openvidu, pro)
    assert await driver.health() == Health(state="up")
    pro.media_nodes["media_2"]["connected"] = False
    assert await driver.health() == Health(state="degraded", lost_nodes=("media_2",))
    pro.media_nodes["media_1"]["connected"] = False
    assert await driver.health() == Health(state="down", lost_nodes=("media_1", "media_2"))
    assert not pro.made("sessions")


async def test_health_of_a_community_server_is_that_it_lists_its_sessions(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    assert await driver_of(openvidu, stub).health() == Health(state="up")
    assert stub.made("sessions")


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_health_where_there_is_none(
    openvidu: OpenViduConnections, pro: OpenViduStub, status: int
) -> None:
    pro.behave("health", always=Trouble(status=status))
    assert await driver_of(openvidu, pro).health() == Health(state="up")


async def test_health_where_there_is_no_openvidu(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    stub.behave("sessions", always=Trouble(status=404))
    with pytest.raises(UnreachableError, match="no OpenVidu"):
        await driver_of(openvidu, stub).health()


async def test_proxy_in_front_that_reaches_no_server(
    openvidu: OpenViduConnections, pro: OpenViduStub
) -> None:
    pro.behave("health", Trouble(status=503, body=b"<html>503 Service Unavailable</html>"))
    with pytest.raises(UnreachableError, match="503"):
        await driver_of(openvidu, pro).health()


async def test_degraded_without_a_readable_body(openvidu: OpenViduConnections, pro: OpenViduStub) -> None:
    pro.behave("health", Trouble(status=409, body=b"conflict"))
    with pytest.raises(MalformedAnswerError):
        await driver_of(openvidu, pro).health()


# --- sessions ---------------------------------------------------------------------------------


async def test_session_gets_the_conference_id(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    assert await driver_of(openvidu, stub).create_room("room-1", OPTIONS) == "room-1"
    [call] = stub.made("create_room")
    assert call.body == {"customSessionId": "room-1", "mediaMode": "ROUTED", "recordingMode": "MANUAL"}


async def test_session_that_exists_needs_no_second_call(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await driver.create_room("room-1", OPTIONS)
    assert [call.kind for call in stub.calls] == ["create_room", "create_room"]


async def test_session_with_another_id_is_no_use(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    stub.behave("create_room", Trouble(body=b'{"id": "ses_X", "createdAt": 1}'))
    with pytest.raises(MalformedAnswerError, match="another id"):
        await driver_of(openvidu, stub).create_room("room-1", OPTIONS)


@pytest.mark.parametrize("room", ["a.b", "a~1", "a@b", "a:b", "a/b", "ä", "a b", "a\n", "../sessions"])
async def test_ids_that_no_session_can_have(
    openvidu: OpenViduConnections, stub: OpenViduStub, room: str
) -> None:
    driver = driver_of(openvidu, stub)
    assert not driver.capabilities.accepts(room)
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: driver.create_room(room, OPTIONS),
        lambda: driver.create_token(room, user="u", role="presenter", region="eu"),
        lambda: driver.list_participants(room),
        lambda: driver.start_recording(room),
    ]
    for call in calls:
        with pytest.raises(RequestRefusedError, match="only letters, digits, - and _"):
            await call()
    await driver.delete_room(room)  # it is surely not there
    assert not stub.calls


async def test_no_master_behind_the_balancer_is_worth_another_try(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    stub.behave("create_room", Trouble(status=404))
    with pytest.raises(UnreachableError) as caught:
        await driver_of(openvidu, stub).create_room("room-1", OPTIONS)
    assert caught.value.retryable


async def test_session_that_is_just_closing_is_worth_another_try(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    stub.closing.add("room-1")
    with pytest.raises(BusyError, match="closed") as caught:
        await driver.delete_room("room-1")
    assert caught.value.retryable
    stub.closing.clear()
    await driver.delete_room("room-1")
    assert not stub.rooms


async def test_closing_is_waited_for_longer_than_other_calls(stub: OpenViduStub) -> None:
    stub.behave("create_room", Trouble(hang=True))
    async with OpenViduConnections(call_timeout=0.05, session_timeout=60.0) as openvidu:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(driver_of(openvidu, stub).create_room("room-1", OPTIONS))
            await stub.wait_for(lambda: stub.in_flight == 1)
            await asyncio.wait([call], timeout=0.3)
            assert not call.done()
            call.cancel()
        assert call.cancelled()


async def test_sessions_are_the_load(openvidu: OpenViduConnections, pro: OpenViduStub) -> None:
    driver = driver_of(openvidu, pro)
    await driver.create_room("room-1", OPTIONS)
    await driver.create_room("room-2", OPTIONS)
    await driver.create_token("room-1", user="late", role="viewer", region="eu")
    await join(driver, pro, "alice", streams=2)
    await join(driver, pro, "bob")
    first, second = await driver.list_sessions()
    assert (first.id, first.participants, first.streams, first.node) == ("room-1", 2, 2, "media_1")
    assert (second.id, second.participants, second.streams, second.node) == ("room-2", 0, 0, None)
    assert pro.made("sessions")[0].query == {"pendingConnections": "false", "webRtcStats": "false"}


async def test_large_listing_passes_up_to_its_own_limit(stub: OpenViduStub) -> None:
    rows = ",".join(f'{{"id": "s{n}"}}' for n in range(300))
    stub.behave("sessions", always=Trouble(body=f'{{"content": [{rows}]}}'.encode()))
    async with OpenViduConnections(max_answer_bytes=100, max_listing_bytes=10_000) as openvidu:
        assert len(await driver_of(openvidu, stub).list_sessions()) == 300
    async with OpenViduConnections(max_listing_bytes=1000) as openvidu:
        with pytest.raises(MalformedAnswerError, match="1000 bytes"):
            await driver_of(openvidu, stub).list_sessions()


# --- connections ------------------------------------------------------------------------------


async def test_token_is_the_whole_url(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    stub.portal = "media.example"
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    token = await driver.create_token("room-1", user="alice", role="presenter", region="eu-west")
    assert (token.ip, token.port, token.secure) == ("media.example", 443, True)
    assert token.text.startswith("wss://media.example?sessionId=room-1&token=tok_")
    [call] = stub.made("token")
    assert call.body == {"type": "WEBRTC", "role": "PUBLISHER", "data": "alice"}


@pytest.mark.parametrize(("role", "theirs"), list(ROLES.items()))
async def test_roles(openvidu: OpenViduConnections, stub: OpenViduStub, role: str, theirs: str) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await driver.create_token("room-1", user="alice", role=role, region="eu")
    assert stub.made("token")[0].body["role"] == theirs


@pytest.mark.parametrize("role", ["audio_only_presenter", "PUBLISHER", ""])
async def test_role_that_openvidu_has_not_is_not_guessed(
    openvidu: OpenViduConnections, stub: OpenViduStub, role: str
) -> None:
    with pytest.raises(RequestRefusedError, match="role"):
        await driver_of(openvidu, stub).create_token("room-1", user="u", role=role, region="eu")
    assert not stub.calls


async def test_roles_of_ones_own(stub: OpenViduStub) -> None:
    async with OpenViduConnections(roles={"teacher": "MODERATOR", "pupil": "PUBLISHER"}) as openvidu:
        driver = driver_of(openvidu, stub)
        await driver.create_room("room-1", OPTIONS)
        await driver.create_token("room-1", user="ann", role="teacher", region="eu")
        [connection] = stub.connections["room-1"]
        stub.join("room-1", connection)
        assert await driver.list_participants("room-1") == (
            RoomParticipant(id=connection, user="ann", role="teacher"),
        )


async def test_participants_are_those_who_have_arrived(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    alice = await join(driver, stub, "alice")
    await driver.create_token("room-1", user="bob", role="viewer", region="eu")
    camera = await join(driver, stub, "")
    stub.connections["room-1"][camera] |= {"type": "IPCAM", "role": None, "serverData": None}
    assert await driver.list_participants("room-1") == (
        RoomParticipant(id=alice, user="alice", role="presenter"),
        RoomParticipant(id=camera, user="", role=""),
    )
    assert stub.made("participants")[0].query == {"pendingConnections": "false"}


async def test_pending_ones_are_left_out_even_when_listed(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    pending = b'{"content": [{"connectionId": "con_1", "status": "pending", "role": "PUBLISHER"}]}'
    stub.behave("participants", Trouble(body=pending))
    assert await driver_of(openvidu, stub).list_participants("room-1") == ()


# --- media nodes ------------------------------------------------------------------------------


async def test_media_nodes(openvidu: OpenViduConnections, pro: OpenViduStub) -> None:
    pro.media_nodes["media_2"] |= {"connected": False, "status": "waiting-idle-to-terminate", "load": 0}
    nodes = await driver_of(openvidu, pro).list_media_nodes()
    assert nodes is not None
    assert [(node.id, node.connected, node.status, node.load) for node in nodes] == [
        ("media_1", True, "running", 12.5),
        ("media_2", False, "waiting-idle-to-terminate", 0.0),
    ]


async def test_media_nodes_of_a_community_server_are_unknown(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    assert await driver_of(openvidu, stub).list_media_nodes() is None


# --- recordings -------------------------------------------------------------------------------


async def test_recording_from_start_to_ready(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await join(driver, stub, "alice")
    started = await driver.start_recording("room-1", name="lesson", output_mode="INDIVIDUAL", has_audio=False)
    assert (started.id, started.session_id, started.status, started.running) == (
        "room-1",
        "room-1",
        "started",
        True,
    )
    assert stub.made("start_recording")[0].body == {
        "session": "room-1",
        "name": "lesson",
        "outputMode": "INDIVIDUAL",
        "hasAudio": False,
        "hasVideo": True,
    }
    assert await driver.get_recording("room-1") == started
    stopped = await driver.stop_recording("room-1")
    assert (stopped.status, stopped.running, stopped.size, stopped.duration) == ("ready", False, 1234, 9.5)


async def test_starting_again_is_the_one_that_runs(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await join(driver, stub, "alice")
    await driver.stop_recording((await driver.start_recording("room-1")).id)
    second = await driver.start_recording("room-1")
    assert second.id == "room-1~1"
    assert await driver.start_recording("room-1") == second
    assert [one.id for one in await driver.list_recordings()] == ["room-1", "room-1~1"]


async def test_conflict_without_a_running_recording_is_a_refusal(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    stub.behave("start_recording", Trouble(status=409))
    with pytest.raises(RequestRefusedError, match="409"):
        await driver_of(openvidu, stub).start_recording("room-1")


async def test_stopping_again_is_done(openvidu: OpenViduConnections, pro: OpenViduStub) -> None:
    driver = driver_of(openvidu, pro)
    await driver.create_room("room-1", OPTIONS)
    await join(driver, pro, "alice")
    recording = (await driver.start_recording("room-1")).id
    assert (await driver.stop_recording(recording)).status == "stopped"
    pro.set_recording(recording, "ready")
    assert (await driver.stop_recording(recording)).status == "ready"


async def test_conflict_in_stopping_what_runs_is_a_refusal(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await join(driver, stub, "alice")
    await driver.start_recording("room-1")
    stub.behave("stop_recording", Trouble(status=409))
    with pytest.raises(RequestRefusedError, match="409"):
        await driver.stop_recording("room-1")


async def test_recording_of_an_empty_room_has_to_wait(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    with pytest.raises(RoomNotFoundError):
        await driver.start_recording("room-1")
    await driver.create_room("room-1", OPTIONS)
    with pytest.raises(BusyError, match="nobody"):
        await driver.start_recording("room-1")


async def test_recording_that_is_still_starting_has_to_wait(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    driver = driver_of(openvidu, stub)
    await driver.create_room("room-1", OPTIONS)
    await join(driver, stub, "alice")
    await driver.start_recording("room-1")
    stub.set_recording("room-1", "starting")
    with pytest.raises(BusyError, match="starting"):
        await driver.stop_recording("room-1")


async def test_recording_that_nobody_knows(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    driver = driver_of(openvidu, stub)
    for call in (driver.get_recording, driver.stop_recording):
        with pytest.raises(RecordingNotFoundError):
            await call("room-1~7")
    assert stub.made("recording")[0].room == "room-1~7"


@pytest.mark.parametrize("recording", ["", ".", ".."])
async def test_recording_id_that_would_climb(
    openvidu: OpenViduConnections, stub: OpenViduStub, recording: str
) -> None:
    with pytest.raises(RequestRefusedError, match="not a recording id"):
        await driver_of(openvidu, stub).get_recording(recording)
    assert not stub.calls


async def test_recording_name_is_looked_at_before_it_is_a_file(
    openvidu: OpenViduConnections, stub: OpenViduStub
) -> None:
    with pytest.raises(RequestRefusedError, match="name"):
        await driver_of(openvidu, stub).start_recording("room-1", name="../x")
    assert not stub.calls


async def test_recording_that_is_switched_off(openvidu: OpenViduConnections, stub: OpenViduStub) -> None:
    stub.recording_module = False
    driver = driver_of(openvidu, stub)
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: driver.start_recording("room-1"),
        lambda: driver.stop_recording("room-1"),
        driver.list_recordings,
    ]
    for call in calls:
        with pytest.raises(NotSupportedError, match="switched off"):
            await call()


# --- trouble in the calls that only OpenVidu has ----------------------------------------------

CALLS: dict[str, Callable[[OpenViduDriver], Coroutine[Any, Any, Any]]] = {
    "sessions": lambda d: d.list_sessions(),
    "media_nodes": lambda d: d.list_media_nodes(),
    "start_recording": lambda d: d.start_recording("room-1"),
    "stop_recording": lambda d: d.stop_recording("room-1"),
    "recording": lambda d: d.get_recording("room-1"),
    "recordings": lambda d: d.list_recordings(),
}
every_call = pytest.mark.parametrize("kind", list(CALLS))


@every_call
@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (Trouble(status=400, body=b"secret"), RequestRefusedError),
        (Trouble(status=401), CredentialsRefusedError),
        (Trouble(status=302, headers={"Location": "http://127.0.0.1:1/"}), RequestRefusedError),
        (Trouble(status=500, body=b"secret"), UnreachableError),
        (Trouble(status=503), UnreachableError),
        (Trouble(), MalformedAnswerError),
        (Trouble(body=b"\xff"), MalformedAnswerError),
        (Trouble(body=b'{"content": [7], "items": [7], "id": "x"}'), MalformedAnswerError),
        (Trouble(body=b"x" * (17 << 20)), MalformedAnswerError),
    ],
    ids=["400", "401", "302", "500", "503", "empty", "bytes", "wrong", "huge"],
)
async def test_every_trouble_is_a_driver_error(
    openvidu: OpenViduConnections, pro: OpenViduStub, kind: str, trouble: Trouble, error: type[DriverError]
) -> None:
    pro.behave(kind, always=trouble)
    with pytest.raises(error) as caught:
        await CALLS[kind](driver_of(openvidu, pro))
    assert pro.service_key not in str(caught.value)
    assert "secret" not in str(caught.value)


@every_call
async def test_hanging_cluster(pro: OpenViduStub, kind: str) -> None:
    pro.behave(kind, always=Trouble(hang=True))
    async with OpenViduConnections(call_timeout=0.1, recording_timeout=0.1) as openvidu:
        with pytest.raises(DriverTimeoutError):
            await CALLS[kind](driver_of(openvidu, pro))
