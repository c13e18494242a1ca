from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from causeway.api import BridgeAddress, RoomOptions
from control.drivers.base import (
    Bridges,
    ClusterDriver,
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    MalformedAnswerError,
    RequestRefusedError,
    RoomNotFoundError,
    RoomParticipant,
    UnreachableError,
)
from control.drivers.mauth import authorization
from control.drivers.owt import OwtConnections
from control.drivers.owt_rooms import room_options
from tests.control.owt_stub import OwtStub, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

OPTIONS = RoomOptions()
FINGERPRINT = "ab" * 32
BRIDGES = Bridges(
    event=BridgeAddress(host="192.0.2.7", port=7000, fingerprint=FINGERPRINT),
    media=BridgeAddress(host="192.0.2.8", port=7001, fingerprint="cd" * 32),
)


@pytest.fixture
async def stub() -> AsyncIterator[OwtStub]:
    async with OwtStub() as stub:
        yield stub


@pytest.fixture
async def owt() -> AsyncIterator[OwtConnections]:
    async with OwtConnections() as connections:
        yield connections


def driver_of(owt: OwtConnections, stub: OwtStub) -> ClusterDriver:
    return owt.driver(rest_url=stub.url, service_id=stub.service_id, service_key=stub.service_key)


def cascade(driver: ClusterDriver, *, with_fingerprints: bool = False, bridges: Bridges = BRIDGES) -> Any:
    return driver.start_cascade(
        "room-1",
        token="the room token",
        self_cluster="us-1",
        target_cluster="eu-1",
        bridges=bridges,
        with_fingerprints=with_fingerprints,
    )


CALLS: dict[str, Callable[[ClusterDriver], Coroutine[Any, Any, Any]]] = {
    "bridges": lambda d: d.get_bridges("room-1", target_cluster="us-1"),
    "cascading": cascade,
}
"""The calls that only OWT has; test_driver_contract.py makes the others."""
every_call = pytest.mark.parametrize("kind", list(CALLS))


# --- signatures -------------------------------------------------------------------------------


async def test_concurrent_requests_pass_the_timestamp_check(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(driver.create_token("room-1", user=f"u{n}", role="presenter", region="eu"))
    assert len(stub.made("token")) == 200
    # Only requests that straddle a step of the clock can be overtaken, and they are signed anew.
    assert stub.refused == stub.stale


async def test_overtaken_by_another_replica(owt: OwtConnections, stub: OwtStub) -> None:
    stub.saw_timestamp(int(time.time() * 1000) // 1000 * 1000 + 1000)
    assert await driver_of(owt, stub).create_room("room-1", OPTIONS) == "room-1"
    assert len(stub.made("create_room")) == 1


async def test_wrong_key(owt: OwtConnections, stub: OwtStub) -> None:
    driver = owt.driver(rest_url=stub.url, service_id=stub.service_id, service_key="another secret")
    with pytest.raises(CredentialsRefusedError) as caught:
        await driver.create_room("room-1", OPTIONS)
    assert not caught.value.retryable
    assert stub.refused == 3
    assert "another secret" not in str(caught.value)


async def test_the_stub_refuses_replays_and_old_timestamps(stub: OwtStub) -> None:
    def try_it(timestamp: int, cnonce: str) -> bool:
        return stub.authentic(
            authorization(stub.service_id, stub.service_key, timestamp=timestamp, cnonce=cnonce)
        )

    assert try_it(2000, "a")
    assert try_it(2000, "b")
    assert not try_it(2000, "b")
    assert not try_it(1999, "c")
    assert try_it(2001, "d")


# --- rooms ------------------------------------------------------------------------------------


async def test_room_gets_the_conference_id(owt: OwtConnections, stub: OwtStub) -> None:
    assert await driver_of(owt, stub).create_room("room-1", OPTIONS) == "room-1"
    [call] = stub.made("create_room")
    assert call.body == {"name": "room-1", "options": {"_id": "room-1", **room_options(OPTIONS)}}


async def test_room_that_exists_is_created(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    assert await driver.create_room("room-1", OPTIONS) == "room-1"
    assert len(stub.rooms) == 1


async def test_room_whose_answer_was_lost_is_created(owt: OwtConnections, stub: OwtStub) -> None:
    stub.behave("create_room", Trouble(lose_answer=True))
    assert await driver_of(owt, stub).create_room("room-1", OPTIONS) == "room-1"


async def test_room_that_cannot_be_created_says_why(owt: OwtConnections, stub: OwtStub) -> None:
    stub.behave("create_room", always=Trouble(status=400))
    with pytest.raises(RequestRefusedError, match="400"):
        await driver_of(owt, stub).create_room("room-1", OPTIONS)


async def test_room_with_another_id_is_no_use(owt: OwtConnections, stub: OwtStub) -> None:
    stub.behave("create_room", Trouble(body=b'{"_id": "5f0c"}'))
    with pytest.raises(MalformedAnswerError, match="another id"):
        await driver_of(owt, stub).create_room("room-1", OPTIONS)


async def test_delete_is_done_when_the_room_is_gone(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    await driver.delete_room("room-1")
    assert not stub.rooms
    await driver.delete_room("room-1")
    assert len(stub.made("delete_room")) == 2


@pytest.mark.parametrize("room", ["a/b", "a?b", "a#b", "a%2fb", "ä", "a b", "a:b@c~d", "..a"])
async def test_room_id_is_one_segment_whatever_it_holds(
    owt: OwtConnections, stub: OwtStub, room: str
) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room(room, OPTIONS)
    await driver.create_token(room, user="u", role="presenter", region="eu")
    assert stub.made("token")[0].room == room


@pytest.mark.parametrize("room", ["", ".", ".."])
async def test_room_id_that_would_climb(owt: OwtConnections, stub: OwtStub, room: str) -> None:
    with pytest.raises(RequestRefusedError, match="not a room id"):
        await driver_of(owt, stub).delete_room(room)
    assert not stub.calls


# --- tokens -----------------------------------------------------------------------------------


async def test_token(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    token = await driver.create_token("room-1", user="alice", role="presenter", region="eu-west")
    assert (token.ip, token.port, token.secure) == ("127.0.0.1", 8080, False)
    assert json.loads(b64decode(token.text))["tokenId"] == "token-1"
    assert token.text not in repr(token)
    [call] = stub.made("token")
    assert call.body == {
        "preference": {"isp": "isp", "region": "eu-west"},
        "user": "alice",
        "role": "presenter",
    }


async def test_token_for_a_room_that_is_not_there(owt: OwtConnections, stub: OwtStub) -> None:
    with pytest.raises(RoomNotFoundError):
        await driver_of(owt, stub).create_token("room-1", user="u", role="presenter", region="eu")


# --- cascading --------------------------------------------------------------------------------


async def test_bridges_is_a_get_with_a_body(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    bridges = await driver.get_bridges("room-1", target_cluster="us-1")
    assert bridges == Bridges(
        event=BridgeAddress(host="192.0.2.1", port=7700), media=BridgeAddress(host="192.0.2.2", port=7701)
    )
    assert stub.made("bridges")[0].body == {"targetCluster": "us-1"}


async def test_bridges_with_fingerprints(owt: OwtConnections) -> None:
    async with OwtStub(fingerprints=True) as stub:
        driver = driver_of(owt, stub)
        await driver.create_room("room-1", OPTIONS)
        bridges = await driver.get_bridges("room-1", target_cluster="us-1")
    assert bridges.event.fingerprint == "e" * 64
    assert bridges.media is not None
    assert bridges.media.fingerprint == "d" * 64


async def test_bridges_without_media(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    stub.bridges = {"eventbridgeip": "192.0.2.1", "eventbridgeport": 7700}
    assert (await driver.get_bridges("room-1", target_cluster="us-1")).media is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"eventbridgeport": 0},
        {"eventbridgeport": 65536},
        {"eventbridgeip": ""},
        {"eventbridgeip": "a b"},
        {"eventbridgeip": "a\n"},
        {"eventbridgeip": "h/../x"},
        {"eventbridgefingerprint": "AB"},
        {"mediabridgeport": "x"},
    ],
)
async def test_bridges_that_are_none(owt: OwtConnections, stub: OwtStub, wrong: dict[str, Any]) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    stub.bridges |= wrong
    with pytest.raises(MalformedAnswerError):
        await driver.get_bridges("room-1", target_cluster="us-1")


async def test_cascading_sends_exactly_the_standard_options(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    await cascade(driver)
    assert stub.made("cascading")[0].body == {
        "options": {
            "room": "room-1",
            "token": "the room token",
            "selfCluster": "us-1",
            "targetCluster": "eu-1",
            "evIP": "192.0.2.7",
            "evPort": 7000,
            "mediaIP": "192.0.2.8",
            "mediaPort": 7001,
        }
    }


async def test_cascading_without_media_bridge(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    await cascade(driver, bridges=Bridges(event=BRIDGES.event, media=None))
    assert set(stub.made("cascading")[0].body["options"]).isdisjoint({"mediaIP", "mediaPort"})


async def test_cascading_with_fingerprints(owt: OwtConnections) -> None:
    async with OwtStub(fingerprints=True) as stub:
        driver = driver_of(owt, stub)
        await driver.create_room("room-1", OPTIONS)
        await cascade(driver, with_fingerprints=True)
        plain = Bridges(event=BridgeAddress(host="192.0.2.7", port=7000), media=None)
        await cascade(driver, with_fingerprints=True, bridges=plain)
        first, second = (call.body["options"] for call in stub.made("cascading"))
    assert (first["evFingerprint"], first["mediaFingerprint"]) == (FINGERPRINT, "cd" * 32)
    assert set(second).isdisjoint({"evFingerprint", "mediaFingerprint"})


async def test_plain_cluster_refuses_fingerprints_and_the_token_stays_secret(
    owt: OwtConnections, stub: OwtStub
) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    with pytest.raises(RequestRefusedError) as caught:
        await cascade(driver, with_fingerprints=True)
    assert "the room token" not in str(caught.value)


async def test_cascading_that_is_not_ok(owt: OwtConnections, stub: OwtStub) -> None:
    stub.behave("cascading", Trouble(body=b"<html>welcome to the hotel</html>"), Trouble(body=b'"ok"'))
    with pytest.raises(MalformedAnswerError):
        await cascade(driver_of(owt, stub))
    await cascade(driver_of(owt, stub))


async def test_participants(owt: OwtConnections, stub: OwtStub) -> None:
    driver = driver_of(owt, stub)
    await driver.create_room("room-1", OPTIONS)
    assert await driver.list_participants("room-1") == ()
    stub.participants["room-1"] = [{"id": "p1", "user": "alice", "role": "presenter", "permission": {}}]
    assert await driver.list_participants("room-1") == (
        RoomParticipant(id="p1", user="alice", role="presenter"),
    )


# --- trouble ----------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (Trouble(status=403), CredentialsRefusedError),
        (Trouble(status=400), RequestRefusedError),
        (Trouble(status=302, headers={"Location": "http://127.0.0.1:1/"}), RequestRefusedError),
        (Trouble(status=500, body=b"secret"), UnreachableError),
        (Trouble(status=503), UnreachableError),
        (Trouble(body=b"x" * 2_000_000), MalformedAnswerError),
    ],
    ids=["403", "400", "302", "500", "503", "huge"],
)
async def test_every_trouble_is_a_driver_error(
    owt: OwtConnections, stub: OwtStub, kind: Any, trouble: Trouble, error: type[DriverError]
) -> None:
    stub.behave(kind, always=trouble)
    with pytest.raises(error) as caught:
        await CALLS[kind](driver_of(owt, stub))
    assert stub.service_key not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@every_call
@pytest.mark.parametrize("body", [b"", b"garbage", b"\xff\xfe", b"[1, 2]", b'{"a": 1}'])
async def test_garbage(owt: OwtConnections, stub: OwtStub, kind: Any, body: bytes) -> None:
    stub.behave(kind, always=Trouble(body=body))
    with pytest.raises(MalformedAnswerError):
        await CALLS[kind](driver_of(owt, stub))


@every_call
async def test_hanging_cluster(stub: OwtStub, kind: Any) -> None:
    stub.behave(kind, always=Trouble(hang=True))
    async with OwtConnections(call_timeout=0.1, cascade_timeout=0.1) as owt:
        with pytest.raises(DriverTimeoutError) as caught:
            await CALLS[kind](driver_of(owt, stub))
    assert caught.value.retryable


async def test_cascading_has_its_own_patience(stub: OwtStub) -> None:
    stub.behave("cascading", Trouble(hang=True))
    async with OwtConnections(call_timeout=0.05, cascade_timeout=60.0) as owt:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(cascade(driver_of(owt, stub)))
            await stub.wait_for(lambda: stub.in_flight == 1)
            await asyncio.wait([call], timeout=0.3)
            assert not call.done()
            call.cancel()
        assert call.cancelled()


# --- TLS --------------------------------------------------------------------------------------


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster.example")])
    now = datetime.now(UTC)
    addresses = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.IPAddress(IPv6Address("::1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "cluster.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


async def test_tls_is_verified_unless_told_otherwise(tmp_path: Path, owt: OwtConnections) -> None:
    pem = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    async with OwtStub(ssl_context=server) as stub:
        with pytest.raises(UnreachableError, match="Certificate"):
            await driver_of(owt, stub).create_room("room-1", OPTIONS)
        assert not stub.calls
        trusting = ssl.create_default_context(cafile=str(pem))
        async with OwtConnections(ssl_context=trusting) as knowing:
            assert await driver_of(knowing, stub).create_room("room-1", OPTIONS) == "room-1"
