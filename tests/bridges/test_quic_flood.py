"""Those who come in numbers, under false addresses, or with nothing to show: what they get."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from bridges.codes import CloseCode
from bridges.quic import DialError, QuicSettings, dial
from bridges.quic.sockets import udp_socket
from tests.bridges.test_quic import FAST, listening, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioquic.quic.connection import NetworkAddress

    from bridges.quic import Connection


def initial(*, token: bytes = b"") -> bytes:
    """Return the first datagram of a handshake."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], token=token))
    quic.connect(("127.0.0.1", 1), now=0.0)
    ((datagram, _), *_) = quic.datagrams_to_send(now=0.0)
    return datagram


@contextmanager
def strangers(port: int, count: int, *, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Begin `count` handshakes that nobody goes on with, as under false addresses."""
    sockets = []
    try:
        for _ in range(count):
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets.append(stranger)
            stranger.bind((host, 0))
            stranger.setblocking(False)
            stranger.sendto(initial(), ("127.0.0.1", port))
        yield sockets
    finally:
        for stranger in sockets:
            stranger.close()


def taken(stranger: socket.socket) -> list[bytes]:
    """Return what has come to a socket."""
    found: list[bytes] = []
    while True:
        try:
            found.append(stranger.recv(65536))
        except BlockingIOError:
            return found


def is_retry(datagram: bytes) -> bool:
    return datagram[0] & 0xF0 == 0xF0


def dial_from(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Have dials begin at another address of this machine."""

    def bound(*args: Any, **options: Any) -> socket.socket:
        made = udp_socket(*args, **options)
        made.bind((host, 0))
        return made

    monkeypatch.setattr(sys.modules[dial.__module__], "udp_socket", bound)


async def test_an_address_that_is_not_proven_gets_no_more_than_three_times_what_it_sent() -> None:
    async with listening(msgspec.structs.replace(FAST, handshake_timeout=1.0)) as pair:
        with strangers(pair.listener.port, 3) as sockets:
            await until(lambda: pair.listener.connections == 3)
            # All of the handshake's repetitions have been sent when the listener has given it up.
            await until(lambda: pair.listener.connections == 0)
            for stranger in sockets:
                answers = taken(stranger)
                assert answers
                assert sum(map(len, answers)) <= 3 * len(initial())
        assert pair.refused["handshake_failed"] == 3


async def test_a_flood_of_handshakes_has_every_newcomer_prove_its_address_and_keeps_nobody_out() -> None:
    settings = msgspec.structs.replace(FAST, retry_above=4, handshake_timeout=2.0)
    async with listening(settings) as pair:
        with strangers(pair.listener.port, 60) as sockets:
            await until(lambda: pair.refused["retry_sent"] == 56)
            assert pair.listener.connections == 4
            _, _, theirs = await pair.connect()
            assert theirs.lost == []
            assert pair.refused["retry_sent"] == 57, "so had the honest one to"
            answers = [answer for stranger in sockets for answer in taken(stranger)]
            retries = [answer for answer in answers if is_retry(answer)]
            assert len(retries) == 56
            assert max(map(len, retries)) < 200, "a proof costs the listener less than the question did"


async def test_a_proof_is_good_for_its_address_only() -> None:
    settings = msgspec.structs.replace(FAST, retry=True)
    async with listening(settings) as pair:
        address = ("127.0.0.1", pair.listener.port)
        client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"]))
        client.connect(address, now=0.0)
        with strangers(pair.listener.port, 0), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as honest:
                for one in (honest, thief):
                    one.bind(("127.0.0.1", 0))
                    one.setblocking(False)
                for datagram, _ in client.datagrams_to_send(now=0.0):
                    honest.sendto(datagram, address)
                loop = asyncio.get_running_loop()
                client.receive_datagram(await loop.sock_recv(honest, 65536), address, now=0.1)
                proven = [datagram for datagram, _ in client.datagrams_to_send(now=0.1)]
            thief.sendto(proven[0], address)
            thief.sendto(initial(token=b"forged" * 8), address)
            thief.sendto(initial(token=b"x"), address)
            await until(lambda: pair.refused["retry_refused"] == 3)
            assert pair.listener.connections == 0
            assert taken(thief) == []


async def test_one_address_cannot_begin_handshakes_without_end_and_the_others_do_not_feel_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = msgspec.structs.replace(
        FAST, handshakes_per_address=0.001, handshake_burst=2, handshake_timeout=0.5
    )
    async with listening(settings) as pair:
        for _ in range(4):  # two unproven, two proven
            await pair.connect()
        assert pair.refused["retry_sent"] == 2
        with pytest.raises(DialError):
            await pair.connect()
        assert pair.refused["handshake_limited"] > 0
        dial_from(monkeypatch, "127.0.0.2")
        await pair.connect()


async def test_an_address_holds_a_share_of_what_strangers_may_hold() -> None:
    settings = msgspec.structs.replace(
        FAST, max_unverified=3, max_unverified_per_address=2, handshake_timeout=0.5
    )
    async with listening(settings) as pair:
        _, oldest, first = await pair.connect()
        await pair.connect()
        with pytest.raises(DialError):
            await pair.connect()
        assert pair.refused["handshake_limited"] > 0
        assert first.connection is not None
        first.connection.verified()  # whoever has shown a token is no stranger any more
        await pair.connect()
        assert oldest.lost == []


async def test_when_strangers_have_taken_every_place_the_oldest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening(msgspec.structs.replace(FAST, max_unverified=3)) as pair:
        strangers_of = []
        for number in range(3):
            with monkeypatch.context() as patch:
                dial_from(patch, f"127.0.0.{number + 2}")
                strangers_of.append(await pair.connect())
        _, newcomer, theirs = await pair.connect()
        oldest = strangers_of[0][1]
        await oldest.until(lambda r: r.lost)
        assert f"0x{CloseCode.BUSY:x}" in oldest.lost[0]
        assert pair.refused["unverified_crowded"] == 1
        assert theirs.connection is not None
        theirs.connection.verified()
        for _ in range(3):
            await pair.connect()
        await strangers_of[2][1].until(lambda r: r.lost)
        assert newcomer.lost == [], "who has shown a token stays"


async def test_a_connection_without_a_token_is_closed_and_one_with_a_token_is_not() -> None:
    async with listening(msgspec.structs.replace(FAST, verify_timeout=0.2)) as pair:
        _, ours, theirs = await pair.connect()
        _, let_in, verified = await pair.connect()
        assert verified.connection is not None
        verified.connection.verified()
        await ours.until(lambda r: r.lost)
        assert f"0x{CloseCode.TIMED_OUT:x}" in ours.lost[0]
        await theirs.until(lambda r: r.lost)
        assert pair.refused["unverified"] == 1
        assert let_in.lost == []
        assert verified.lost == []


async def test_a_stranger_may_keep_little_waiting() -> None:
    settings = msgspec.structs.replace(FAST, max_unverified_bytes=1 << 16)
    async with listening(settings) as pair:
        connection, _, theirs = await pair.connect()
        stream = connection.open_stream()
        connection.send(stream, bytes(1 << 18))
        connection.quic._streams[stream].sender._pending.subtract(0, 1)  # the first byte never comes
        await theirs.until(lambda r: r.lost)
        assert "out of order" in theirs.lost[0]
        known, _, trusted = await pair.connect()
        assert trusted.connection is not None
        trusted.connection.verified()
        stream = known.open_stream()
        known.send(stream, bytes(1 << 18))
        known.quic._streams[stream].sender._pending.subtract(0, 1)
        await until(lambda: pair.listener.connections == 1)
        assert trusted.lost == []


async def test_datagrams_seen_on_the_way_and_said_again_by_somebody_else_change_nothing() -> None:
    async with listening() as pair:
        seen: list[bytes] = []
        connection, ours, theirs = await pair.connect()
        spy_on(connection, seen)
        stream = connection.open_stream()
        connection.send(stream, b"once")
        await theirs.until(lambda r: r.data.get(stream) == b"once")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            for datagram in seen * 5:
                stranger.sendto(datagram, ("127.0.0.1", pair.listener.port))
            for number in range(20):
                assert theirs.connection is not None
                theirs.connection.send(stream, bytes([number]))
                await ours.until(lambda r, number=number: len(r.data.get(stream, b"")) > number)  # type: ignore[misc] # mypy: lambda default
            assert theirs.data == {stream: b"once"}
            assert ours.data == {stream: bytes(range(20))}
            assert sum(map(len, taken(stranger))) <= 3 * 5 * sum(map(len, seen))


def spy_on(connection: Connection, seen: list[bytes]) -> None:
    """Note what a dialled connection sends."""
    endpoint: Any = connection._endpoint
    send = endpoint.send_datagrams

    def noted(datagrams: list[bytes], address: NetworkAddress) -> None:
        seen.extend(datagrams)
        send(datagrams, address)

    endpoint.send_datagrams = noted


async def test_only_agreed_protocols_are_spoken_and_both_ends_know_which() -> None:
    both = msgspec.structs.replace(FAST, alpn=("causeway/1", "h3"))
    async with listening(both) as pair:
        connection, _, theirs = await pair.connect()
        assert theirs.connection is not None
        assert connection.protocol == theirs.connection.protocol == "causeway/1"
        owt = await dial(
            "127.0.0.1",
            pair.listener.port,
            fingerprint=pair.certificate.fingerprint,
            settings=both,
            alpn=("h3",),
        )
        assert owt.protocol == "h3"
        owt.close()
        await owt.wait_closed()
        assert (await pair.accepted.get()).connection is not None


@pytest.mark.parametrize("alpn", [(), ("",)])
def test_settings_need_a_protocol(alpn: tuple[str, ...]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"alpn": alpn}, QuicSettings)


async def test_signs_of_life() -> None:
    async with listening() as pair:
        connection, _, theirs = await pair.connect()
        assert await connection.answers()
        assert theirs.connection is not None
        assert await theirs.connection.answers()
        asked = asyncio.create_task(connection.answers())
        deaf: Any = connection.quic
        deaf.receive_datagram = lambda *_, **__: None
        assert not await asked
        del deaf.receive_datagram
        asked = asyncio.create_task(connection.answers())
        await asyncio.sleep(0)
        connection.close()
        assert not await asked
        assert not await connection.answers()
