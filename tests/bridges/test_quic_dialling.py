"""Dialling a QUIC endpoint: whose certificate is taken, which address, and what comes when nobody answers."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from bridges.quic import (
    Certificate,
    Connection,
    DialError,
    dial,
    listen,
)
from causeway.errors import UnavailableError
from tests.bridges.test_quic import FAST, WAIT, Recorder, listening, until


async def test_wrong_fingerprint_is_refused_before_anything_is_handed_out() -> None:
    async with listening() as pair:
        with pytest.raises(DialError, match="another certificate"):
            await pair.connect(fingerprint="0" * 64)
        # The listener's side may have seen a handshake, but it ends at once.
        await until(lambda: pair.listener.connections == 0)


async def test_unknown_fingerprint_is_refused_unless_allowed() -> None:
    async with listening() as pair:
        with pytest.raises(DialError, match="not known"):
            await dial("127.0.0.1", pair.listener.port, fingerprint=None, settings=FAST)
        careless = msgspec.structs.replace(FAST, insecure_unpinned=True)
        connection = await dial("127.0.0.1", pair.listener.port, fingerprint=None, settings=careless)
        connection.close()
        await connection.wait_closed()


async def test_fingerprint_may_be_written_as_browsers_do() -> None:
    async with listening() as pair:
        text = pair.certificate.fingerprint.upper()
        await pair.connect(fingerprint=":".join(text[i : i + 2] for i in range(0, 64, 2)))


async def test_nobody_listens_is_known_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = msgspec.structs.replace(FAST, handshake_timeout=30.0)
    async with asyncio.timeout(WAIT):
        with pytest.raises(DialError, match="refused"):
            await dial("127.0.0.1", port, fingerprint="0" * 64, settings=settings)


async def test_silence_ends_the_dial() -> None:
    settings = msgspec.structs.replace(FAST, handshake_timeout=0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        with pytest.raises(DialError, match="no handshake within"):
            await dial("127.0.0.1", deaf.getsockname()[1], fingerprint="0" * 64, settings=settings)


async def test_unknown_name() -> None:
    with pytest.raises(DialError):
        await dial("no-such-host.invalid", 1, fingerprint="0" * 64, settings=FAST)


async def test_other_protocol_is_refused() -> None:
    async with listening() as pair:
        other = msgspec.structs.replace(FAST, alpn=("other",))
        with pytest.raises(DialError):
            await dial(
                "127.0.0.1", pair.listener.port, fingerprint=pair.certificate.fingerprint, settings=other
            )


async def test_localhost_reaches_whichever_family_listens() -> None:
    async with listening() as pair:
        connection = await dial(
            "localhost", pair.listener.port, fingerprint=pair.certificate.fingerprint, settings=FAST
        )
        assert connection.remote == ("127.0.0.1", pair.listener.port)
        connection.close()
        await connection.wait_closed()


async def test_ipv6() -> None:
    certificate = Certificate.self_signed("six")
    recorders: list[Recorder] = []

    def accept(connection: Connection) -> Recorder:
        recorders.append(Recorder(connection))
        return recorders[-1]

    try:
        listener = await listen("::1", 0, certificate=certificate, on_connection=accept, settings=FAST)
    except UnavailableError:
        pytest.skip("no IPv6 here")
    connection = await dial("::1", listener.port, fingerprint=certificate.fingerprint, settings=FAST)
    stream = connection.open_stream()
    connection.send(stream, b"six")
    await until(lambda: recorders and recorders[0].data.get(stream) == b"six")
    connection.close()
    await connection.wait_closed()
    listener.close()


async def test_taken_port_is_one_clear_error() -> None:
    async with listening() as pair:
        with pytest.raises(UnavailableError, match="cannot listen"):
            await listen(
                "127.0.0.1",
                pair.listener.port,
                certificate=pair.certificate,
                on_connection=pair.on_connection,
                settings=FAST,
            )
