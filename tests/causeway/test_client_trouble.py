"""What the client makes of refusals, of answers that are none, and of nobody answering."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from causeway.api import (
    JoinRequest,
    Problem,
)
from causeway.client import ControlClient
from causeway.errors import ApiError, ConfigError, UnavailableError
from tests.causeway.client_kit import KEY, Control

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


# --- refusals ---------------------------------------------------------------------------------


async def test_problem() -> None:
    problem = Problem(type="stale-epoch", title="Stale epoch", status=409, detail="epoch 6 is over")
    async with Control().answers(problem, 409).client() as client:
        with pytest.raises(ApiError) as caught:
            await client.heartbeat("eu-1", epoch=6)
    error = caught.value
    assert (error.status, error.type, error.detail) == (409, "stale-epoch", "epoch 6 is over")


async def test_problem_without_detail_has_its_title() -> None:
    problem = Problem(type="cluster-unknown", title="No such cluster", status=404)
    async with Control().answers(problem, 404).client() as client:
        with pytest.raises(ApiError, match="No such cluster"):
            await client.get_cluster("eu-1")


@pytest.mark.parametrize(
    ("status", "type_"),
    [(502, "bad-gateway"), (302, "found"), (404, "not-found"), (499, "unknown-status")],
)
@pytest.mark.parametrize("body", [b"", b"<html>proxy</html>", b"[]", b"\xff"])
async def test_answer_that_is_no_problem_is_named_after_its_status(
    status: int, type_: str, body: bytes
) -> None:
    async with Control(status=status, body=body).client() as client:
        with pytest.raises(ApiError) as caught:
            await client.list_clusters()
    assert (caught.value.status, caught.value.type) == (status, type_)


# --- trouble ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b"\xff", b'{"token": "hush"}'])
async def test_answer_that_is_not_controls(body: bytes) -> None:
    async with Control(status=200, body=body).client() as client:
        with pytest.raises(UnavailableError) as caught:
            await client.join("c-1", JoinRequest(user="alice"))
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_answer_that_is_too_large() -> None:
    async with Control(status=200, body=b"x" * 5000).client(max_answer_bytes=4096) as client:
        with pytest.raises(UnavailableError, match="4096"):
            await client.list_conferences()


async def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with ControlClient(f"http://127.0.0.1:{bound.getsockname()[1]}", KEY) as client:
            with pytest.raises(UnavailableError, match="reached") as caught:
                await client.list_conferences()
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""
    closing = asyncio.Event()

    async def stay(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        closing.set()


async def test_no_answer_in_time(mute: str) -> None:
    async with ControlClient(mute, KEY, timeout=0.1) as client:
        with pytest.raises(UnavailableError, match=r"within 0\.1 s"):
            await client.list_conferences()


async def test_answer_that_drips_is_limited_as_a_whole() -> None:
    async def drip(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"["
            await asyncio.Event().wait()

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/{path:path}", drip)])
    transport = httpx2.ASGITransport(app=app)
    async with ControlClient("http://control.example", KEY, timeout=0.1, transport=transport) as client:
        with pytest.raises(UnavailableError, match="within"):
            await client.list_conferences()


async def test_cancelled_call_is_cancelled(mute: str) -> None:
    async with ControlClient(mute, KEY) as client:
        call = asyncio.ensure_future(client.list_conferences())
        await asyncio.wait([call], timeout=0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closed_client() -> None:
    client = Control().client()
    await client.close()
    with pytest.raises(UnavailableError, match="closed"):
        await client.list_conferences()


@pytest.mark.parametrize("url", ["", "control.example", "ftp://control.example", "http://", "http://[::1"])
def test_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        ControlClient(url, KEY)


@pytest.mark.parametrize("key", ["", "hush hush", "hush\r\nX: y", "hüsh"])
def test_key_that_is_none_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="key") as caught:
        ControlClient("http://control.example", key)
    assert "sh" not in str(caught.value).removeprefix("control's key must be printable ASCII")


async def test_key_is_in_no_representation() -> None:
    async with ControlClient("http://control.example", KEY) as client:
        assert KEY not in repr(client)
