"""What every driver promises (control.drivers.base), on each kind of cluster."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from causeway.api import BridgeAddress, RoomOptions
from control.drivers.base import (
    Bridges,
    BusyError,
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    Health,
    MalformedAnswerError,
    NotSupportedError,
    RequestRefusedError,
    RoomNotFoundError,
    UnreachableError,
)
from control.drivers.openvidu import OpenViduConnections
from control.drivers.owt import OwtConnections
from tests.control.cluster_stub import ClusterStub, Trouble
from tests.control.openvidu_stub import OpenViduStub
from tests.control.owt_stub import OwtStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from control.drivers.base import ClusterDriver


OPTIONS = RoomOptions()


@dataclass(frozen=True, kw_only=True)
class Kind:
    stub: Callable[..., OwtStub | OpenViduStub]
    connections: Callable[..., OwtConnections | OpenViduConnections]
    health: str
    """The stub's name of what the driver asks for the cluster's health."""
    impatient: dict[str, float]
    """All of its timeouts, short."""


KINDS = {
    "owt": Kind(
        stub=OwtStub,
        connections=OwtConnections,
        health="list_rooms",
        impatient={"call_timeout": 0.1, "cascade_timeout": 0.1},
    ),
    "openvidu": Kind(
        stub=OpenViduStub,
        connections=OpenViduConnections,
        health="sessions",
        impatient={"call_timeout": 0.1, "session_timeout": 0.1, "recording_timeout": 0.1},
    ),
    "openvidu-pro": Kind(
        stub=lambda **more: OpenViduStub(pro=True, **more),
        connections=OpenViduConnections,
        health="health",
        impatient={"call_timeout": 0.1, "session_timeout": 0.1, "recording_timeout": 0.1},
    ),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
async def stub(kind: Kind) -> AsyncIterator[OwtStub | OpenViduStub]:
    async with kind.stub() as stub:
        yield stub


@pytest.fixture
async def driver(kind: Kind, stub: ClusterStub) -> AsyncIterator[ClusterDriver]:
    async with kind.connections() as connections:
        yield driver_of(connections, stub)


def driver_of(
    connections: OwtConnections | OpenViduConnections, stub: ClusterStub, **other: str
) -> ClusterDriver:
    about = {"rest_url": stub.url, "service_id": stub.service_id, "service_key": stub.service_key}
    return connections.driver(**(about | other))


CALLS: dict[str, Callable[[ClusterDriver], Coroutine[Any, Any, Any]]] = {
    "health": lambda d: d.health(),
    "create_room": lambda d: d.create_room("room-1", OPTIONS),
    "delete_room": lambda d: d.delete_room("room-1"),
    "token": lambda d: d.create_token("room-1", user="u", role="presenter", region="eu"),
    "participants": lambda d: d.list_participants("room-1"),
}
every_call = pytest.mark.parametrize("call", list(CALLS))


def asked(kind: Kind, call: str) -> str:
    return kind.health if call == "health" else call


# --- what must hold ---------------------------------------------------------------------------


async def test_healthy(driver: ClusterDriver) -> None:
    assert await driver.health() == Health(state="up")


async def test_creating_twice_is_the_same_room(driver: ClusterDriver, stub: OwtStub | OpenViduStub) -> None:
    assert await driver.create_room("room-1", OPTIONS) == "room-1"
    assert await driver.create_room("room-1", OPTIONS) == "room-1"
    assert list(stub.rooms) == ["room-1"]


async def test_creating_at_the_same_time_is_the_same_room(
    driver: ClusterDriver, stub: OwtStub | OpenViduStub
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.create_room("room-1", OPTIONS)) for _ in range(10)]
    assert {task.result() for task in tasks} == {"room-1"}
    assert list(stub.rooms) == ["room-1"]


async def test_room_whose_answer_was_lost_is_there_at_the_latest_when_asked_again(
    driver: ClusterDriver, stub: OwtStub | OpenViduStub
) -> None:
    stub.behave("create_room", Trouble(lose_answer=True))
    outcome = (await asyncio.gather(driver.create_room("room-1", OPTIONS), return_exceptions=True))[0]
    assert outcome == "room-1" or (isinstance(outcome, DriverError) and outcome.retryable)
    assert await driver.create_room("room-1", OPTIONS) == "room-1"


async def test_deleting_what_is_not_there_is_done(
    driver: ClusterDriver, stub: OwtStub | OpenViduStub
) -> None:
    await driver.delete_room("room-1")
    await driver.create_room("room-1", OPTIONS)
    await driver.delete_room("room-1")
    assert not stub.rooms
    await driver.delete_room("room-1")
    assert len(stub.made("delete_room")) == 3


async def test_tokens_are_for_one_client_each(driver: ClusterDriver) -> None:
    await driver.create_room("room-1", OPTIONS)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(driver.create_token("room-1", user=f"u{n}", role="presenter", region="eu"))
            for n in range(50)
        ]
    tokens = [task.result() for task in tasks]
    assert len({token.text for token in tokens}) == 50
    assert {token.ip for token in tokens} == {"127.0.0.1"}
    assert all(token.text not in repr(token) for token in tokens)


@pytest.mark.parametrize("call", ["token", "participants"])
async def test_room_that_is_not_there(driver: ClusterDriver, call: str) -> None:
    with pytest.raises(RoomNotFoundError) as caught:
        await CALLS[call](driver)
    assert not caught.value.retryable


async def test_nobody_in_the_room(driver: ClusterDriver) -> None:
    await driver.create_room("room-1", OPTIONS)
    assert await driver.list_participants("room-1") == ()


async def test_cascading_is_said_to_be_possible_or_refused(driver: ClusterDriver, stub: ClusterStub) -> None:
    await driver.create_room("room-1", OPTIONS)
    if driver.capabilities.cascade:
        await driver.get_bridges("room-1", target_cluster="us-1")
        return
    stub.calls.clear()
    with pytest.raises(NotSupportedError) as caught:
        await driver.get_bridges("room-1", target_cluster="us-1")
    bridges = Bridges(event=BridgeAddress(host="192.0.2.7", port=7000), media=None)
    with pytest.raises(NotSupportedError):
        await driver.start_cascade(
            "room-1",
            token="t",
            self_cluster="us-1",
            target_cluster="eu-1",
            bridges=bridges,
            with_fingerprints=False,
        )
    assert caught.value.code == "cluster-cannot"
    assert not caught.value.retryable
    assert not stub.calls


async def test_an_end_of_cascades_is_taken_or_refused_as_it_says(
    driver: ClusterDriver, stub: ClusterStub
) -> None:
    assert not driver.capabilities.stops_cascades
    with pytest.raises(NotSupportedError):
        await driver.stop_cascade("room-1", target_cluster="us-1")
    assert not stub.calls


@pytest.mark.parametrize("room", ["room-1", "a_B-9"])
async def test_ids_that_every_cluster_takes(driver: ClusterDriver, room: str) -> None:
    assert driver.capabilities.accepts(room)
    assert await driver.create_room(room, OPTIONS) == room


@pytest.mark.parametrize("room", ["", ".", ".."])
async def test_ids_that_no_cluster_takes(driver: ClusterDriver, stub: ClusterStub, room: str) -> None:
    assert not driver.capabilities.accepts(room)
    with pytest.raises(RequestRefusedError):
        await driver.create_token(room, user="u", role="presenter", region="eu")
    assert not stub.calls


async def test_rest_url_with_path_and_slash(kind: Kind) -> None:
    async with kind.stub(path="/behind/a/proxy") as stub, kind.connections() as connections:
        driver = driver_of(connections, stub, rest_url=stub.url + "/")
        assert await driver.create_room("room-1", OPTIONS) == "room-1"


def test_key_is_in_no_representation(kind: Kind) -> None:
    driver = kind.connections().driver(rest_url="http://x", service_id="s", service_key="hush")
    assert "hush" not in repr(driver)


# --- trouble ----------------------------------------------------------------------------------


@every_call
async def test_wrong_credentials(kind: Kind, stub: ClusterStub, call: str) -> None:
    async with kind.connections() as connections:
        with pytest.raises(CredentialsRefusedError) as caught:
            await CALLS[call](driver_of(connections, stub, service_key="another secret"))
        assert "another secret" not in str(caught.value)
        assert not caught.value.retryable
        for odd in ["nobody", "a:b", "a\nb", "ä"]:
            with pytest.raises(CredentialsRefusedError):
                await CALLS[call](driver_of(connections, stub, service_id=odd))
    assert not stub.calls


TROUBLES: dict[str, tuple[Trouble, tuple[type[DriverError], ...]]] = {
    "400": (Trouble(status=400), (RequestRefusedError, BusyError)),
    "401": (Trouble(status=401), (CredentialsRefusedError,)),
    "403": (Trouble(status=403, body=b"secret"), (CredentialsRefusedError,)),
    "418": (Trouble(status=418, body=b"secret"), (RequestRefusedError,)),
    "500": (Trouble(status=500, body=b"secret"), (UnreachableError,)),
    "502": (Trouble(status=502, body=b"secret\nsecret"), (UnreachableError,)),
    "503": (Trouble(status=503), (UnreachableError,)),
    "504": (Trouble(status=504), (UnreachableError,)),
    "huge": (Trouble(body=b"[" + b" " * (17 << 20)), (MalformedAnswerError,)),
}


@every_call
@pytest.mark.parametrize("trouble", list(TROUBLES))
async def test_every_trouble_is_a_driver_error(
    kind: Kind, driver: ClusterDriver, stub: ClusterStub, call: str, trouble: str
) -> None:
    answer, errors = TROUBLES[trouble]
    stub.behave(asked(kind, call), always=answer)
    with pytest.raises(errors) as caught:
        await CALLS[call](driver)
    text = f"{caught.value} {caught.value!r}"
    assert stub.service_key not in text
    assert "secret" not in text
    assert "\n" not in text


@every_call
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(
    kind: Kind, driver: ClusterDriver, stub: ClusterStub, call: str, status: int
) -> None:
    async with kind.stub() as elsewhere:
        redirect = Trouble(status=status, headers={"Location": elsewhere.url})
        stub.behave(asked(kind, call), always=redirect)
        with pytest.raises(RequestRefusedError):
            await CALLS[call](driver)
        assert not elsewhere.calls
        assert not elsewhere.refused


@pytest.mark.parametrize("call", ["health", "create_room", "token", "participants"])
@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"\xff\xfe", b"7", b"null", b'{"a": 1}', b"[" * 100_000, b'{"id": {}}'],
    ids=["empty", "text", "bytes", "number", "null", "object", "deep", "wrong"],
)
async def test_garbage(kind: Kind, driver: ClusterDriver, stub: ClusterStub, call: str, body: bytes) -> None:
    stub.behave(asked(kind, call), always=Trouble(body=body))
    with pytest.raises(MalformedAnswerError) as caught:
        await CALLS[call](driver)
    assert caught.value.retryable


@every_call
async def test_hanging_cluster(kind: Kind, stub: ClusterStub, call: str) -> None:
    stub.behave(asked(kind, call), always=Trouble(hang=True))
    async with kind.connections(**kind.impatient) as connections:
        with pytest.raises(DriverTimeoutError) as caught:
            await CALLS[call](driver_of(connections, stub))
    assert caught.value.retryable


async def test_cancelled_call_frees_its_connection(kind: Kind, stub: ClusterStub) -> None:
    stub.behave("participants", Trouble(hang=True))
    async with kind.connections(max_connections=1, max_connections_per_cluster=1) as connections:
        driver = driver_of(connections, stub)
        async with asyncio.TaskGroup() as group:
            call = group.create_task(driver.list_participants("room-1"))
            await stub.wait_for(lambda: stub.in_flight == 1)
            call.cancel()
        assert await driver.create_room("room-1", OPTIONS) == "room-1"


@every_call
async def test_nobody_there(kind: Kind, call: str) -> None:
    async with kind.connections() as connections:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            driver = connections.driver(rest_url=url, service_id="s", service_key="k")
            with pytest.raises(UnreachableError) as caught:
                await CALLS[call](driver)
    assert caught.value.retryable


@pytest.mark.parametrize("url", ["", "http://", "http://[::1", "http://x:99999", "ftp://x", "no url"])
async def test_rest_url_that_is_none(kind: Kind, url: str) -> None:
    async with kind.connections() as connections:
        driver = connections.driver(rest_url=url, service_id="s", service_key="k")
        with pytest.raises(RequestRefusedError, match="rest_url"):
            await driver.delete_room("room-1")


async def test_peer_that_does_not_speak_http(kind: Kind) -> None:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server, kind.connections() as connections:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(MalformedAnswerError) as caught:
            await connections.driver(rest_url=url, service_id="s", service_key="k").delete_room("r")
    # What aiohttp raised shows the request's headers.
    assert caught.value.__cause__ is None


async def test_closed_connections_are_unreachable(kind: Kind, stub: ClusterStub) -> None:
    async with kind.connections() as connections:
        driver = driver_of(connections, stub)
    with pytest.raises(UnreachableError, match="closed"):
        await driver.create_room("room-1", OPTIONS)
