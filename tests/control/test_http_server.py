from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from causeway.errors import ConfigError
from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[int]:
    listener = bind("127.0.0.1", 0)
    server = make_server(hello, HttpSettings(**limits), stop_timeout=1)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.wait_started()
    try:
        yield address_of(listener)[1]
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_requests_are_served_and_bodies_do_not_count_as_heads() -> None:
    async with serving(max_head_bytes=1024) as port:
        post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n"
        last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = await exchange(port, post, b"x" * 2500, b"x" * 2500, post + b"x" * 5000, last)
        assert answer.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    "pieces", [[b"x: " + b"y" * 600 + b"\r\n"] * 4, [b"x: ", *[b"y" * 600] * 4], [b"y" * 3000]]
)
async def test_a_head_that_is_too_large_is_refused(pieces: list[bytes]) -> None:
    async with serving(max_head_bytes=1024) as port:
        answer = await exchange(port, b"GET / HTTP/1.1\r\n", *pieces)
        # When the server closes while we still send, its answer may be lost on the way; it never says 200.
        assert b"200" not in answer
        assert answer == b"" or (b" 431 " in answer and b"application/problem+json" in answer)


async def test_a_head_that_takes_too_long_is_cut_off() -> None:
    async with serving(head_timeout=0.2) as port:
        assert await exchange(port) == b""
        assert await exchange(port, b"GET / HTTP/1.1\r\n") == b""


async def test_more_connections_than_allowed_are_closed() -> None:
    async with serving(max_connections=1) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            assert await exchange(port) == b""
        finally:
            writer.close()


async def test_nonsense_is_refused() -> None:
    async with serving() as port:
        assert b" 400 " in await exchange(port, b"\x16\x03\x01\x02\x00\r\n\r\n")


async def test_a_port_is_shared_by_those_who_want_that_and_by_nobody_else() -> None:
    with bind("127.0.0.1", 0, share=True) as one:
        port = address_of(one)[1]
        with bind("127.0.0.1", port, share=True) as other:
            loop = asyncio.get_running_loop()
            came: set[socket.socket] = set()
            async with asyncio.timeout(10), AsyncExitStack() as stack:
                # Which one gets a connection is drawn by its addresses.
                while came != {one, other}:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    stack.callback(writer.close)
                    accepts = {loop.create_task(loop.sock_accept(each)): each for each in (one, other)}
                    done, pending = await asyncio.wait(accepts, return_when=asyncio.FIRST_COMPLETED)
                    for task in pending:
                        task.cancel()
                    for task in done:
                        stack.callback(task.result()[0].close)
                        came.add(accepts[task])
            with pytest.raises(ConfigError, match="Address already in use"):
                bind("127.0.0.1", port)


def test_an_address_that_cannot_be_had_is_one_clear_line() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = address_of(taken)[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"control\.host"):
        bind("no such host", 0)
    with pytest.raises(ConfigError, match="cannot listen"):
        bind("192.0.2.1", 1)
