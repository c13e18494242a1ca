"""Virtual time with the bridges' own QUIC in it: what takes minutes here must not take seconds."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bridges.quic import Certificate, QuicSettings, dial, listen
from tests.impairment.core import Cause, Profile, Rebinding
from tests.impairment.virtual import StuckError, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.quic import Connection, Listener

SETTINGS = QuicSettings()


class Handler:
    """Keeps what arrives; answers each stream's data with the same if told to."""

    def __init__(self, connection: Connection, *, echoes: bool) -> None:
        self.heard = bytearray()
        self.lost = ""
        self.changed = asyncio.Event()
        self._connection = connection
        self._echoes = echoes

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.heard += data
        self.changed.set()
        if self._echoes:
            self._connection.verified()
            self._connection.send(stream_id, data)

    def stream_reset(self, stream_id: int, code: int) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        self.lost = reason
        self.changed.set()


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[Listener, Certificate]]:
    certificate = Certificate.self_signed("server")
    listener = await listen(
        "127.0.0.1",
        0,
        certificate=certificate,
        on_connection=lambda connection: Handler(connection, echoes=True),
        settings=SETTINGS,
    )
    try:
        yield listener, certificate
    finally:
        listener.close()


async def call(
    loop: VirtualLoop, path: Profile, *, rebinding: Rebinding | None = None
) -> tuple[float, Connection]:
    """Send 50 messages, one every second, and return how long the last echo took."""
    async with echo() as (listener, certificate):
        loop.network.impair(listener.port, there=path, seed=1, rebinding=rebinding)
        connection = await dial(
            "127.0.0.1", listener.port, fingerprint=certificate.fingerprint, settings=SETTINGS
        )
        handler = Handler(connection, echoes=False)
        connection.handler = handler
        stream = connection.open_stream()
        took = 0.0
        for number in range(50):
            sent = loop.time()
            connection.send(stream, b"%03d" % number)
            async with asyncio.timeout(20):
                while len(handler.heard) < 3 * (number + 1) and not handler.lost:
                    handler.changed.clear()
                    await handler.changed.wait()
            assert not handler.lost
            took = loop.time() - sent
            await asyncio.sleep(1)
        assert bytes(handler.heard) == b"".join(b"%03d" % number for number in range(50))
        connection.close()
        return took, connection


def test_delays_are_exact_and_cost_nothing() -> None:
    with VirtualLoop.running() as loop:
        began = loop.time()
        took, _ = loop.run_until_complete(call(loop, Profile(delay=0.25)))
        assert took == pytest.approx(0.5)
        assert loop.time() - began == pytest.approx(50 + 50 * 0.5, abs=2)


def test_quic_survives_a_bad_path() -> None:
    path = Profile(delay=0.1, jitter=0.02, loss=0.05, reorder=0.05, duplicate=0.05)
    with VirtualLoop.running() as loop:
        loop.run_until_complete(call(loop, path))


def test_quic_survives_a_nat_that_forgets() -> None:
    with VirtualLoop.running() as loop:
        loop.run_until_complete(call(loop, Profile(delay=0.05), rebinding=Rebinding(every=7)))
        assert loop.network.unreachable > 0


def test_a_cut_longer_than_the_idle_timeout_ends_a_connection() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with echo() as (listener, certificate):
            path = loop.network.impair(listener.port, there=Profile(delay=0.05))
            connection = await dial(
                "127.0.0.1", listener.port, fingerprint=certificate.fingerprint, settings=SETTINGS
            )
            handler = Handler(connection, echoes=False)
            connection.handler = handler
            began = loop.time()
            path.cut(60)
            async with asyncio.timeout(30):
                await connection.wait_closed()
            assert handler.lost
            assert SETTINGS.idle_timeout * 0.5 < loop.time() - began < SETTINGS.idle_timeout * 2
            assert path.there.lost[Cause.HOLE]

    with VirtualLoop.running() as loop:
        loop.run_until_complete(story(loop))


def test_an_hour_passes_at_once_and_in_order() -> None:
    order: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(number)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for number, seconds in enumerate([3600, 60, 3599.5]):
                group.create_task(wait(number, seconds))

    with VirtualLoop.running() as loop:
        began = loop.time()
        loop.run_until_complete(story())
        assert loop.time() - began == pytest.approx(3600)
    assert order == [1, 2, 0]


def test_who_asks_again_until_time_has_passed_is_not_called_for_ever() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        began, passed = loop.time(), asyncio.Event()

        def call() -> None:
            if loop.time() > began + 1e-8:
                passed.set()
            else:
                loop.call_at(loop.time(), call)

        call()
        await passed.wait()

    with VirtualLoop.running() as loop:
        loop.run_until_complete(story())


def test_waiting_for_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.impairment.virtual._REAL_SECONDS", 0.01)
    with VirtualLoop.running() as loop:
        future = loop.create_future()
        with pytest.raises(StuckError):
            loop.run_until_complete(future)


def test_names_are_not_resolved() -> None:
    with VirtualLoop.running() as loop:
        assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 5, type=socket.SOCK_DGRAM))
        with pytest.raises(ValueError, match="localhost"):
            loop.run_until_complete(loop.getaddrinfo("localhost", 5))
