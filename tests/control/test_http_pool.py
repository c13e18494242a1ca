"""HTTP to clusters, against a peer that says exactly what it is told to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.drivers.base import (
    DriverError,
    MalformedAnswerError,
    RequestRefusedError,
    UnreachableError,
)
from control.drivers.http_line import Answer, Line
from control.drivers.http_pool import Pool
from tests.control.service import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GOODBYE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """Answers each request with the next of `answers`, then with OK; after anything else it closes."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Peer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self.open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    break
                writer.write(answer)
                if answer != OK:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@asynccontextmanager
async def pool(*, keepalive: float = 30.0, most: int = 8, most_per_host: int = 4) -> AsyncIterator[Pool]:
    made = Pool(
        most=most,
        most_per_host=most_per_host,
        connect_timeout=5.0,
        keepalive_timeout=keepalive,
        ssl_context=None,
    )
    try:
        yield made
    finally:
        made.close()


def ask(
    made: Pool, peer: Peer, method: str = "GET", *, body: bytes | None = None, most: int = 1000
) -> asyncio.Task[Answer]:
    url = f"http://127.0.0.1:{peer.port}/v1/rooms?page=1"
    return asyncio.ensure_future(made.send(method, url, body=body, authorization="MAuth x", max_bytes=most))


async def test_a_connection_is_used_again_and_says_what_it_should() -> None:
    async with Peer().serving() as peer, pool() as made:
        for body in (None, b"{}"):
            assert await ask(made, peer, "POST", body=body) == (200, b"ok")
        assert await ask(made, peer, "GET") == (200, b"ok")
        assert peer.connections == 1
    empty, full, plain = peer.requests
    assert empty.startswith(b"POST /v1/rooms?page=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % peer.port)
    assert b"\r\nAuthorization: MAuth x\r\n" in empty
    assert empty.endswith(b"Content-Length: 0\r\n\r\n")
    assert full.endswith(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    assert b"Content-Length" not in plain


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        GOODBYE,
    ],
    ids=["chunked", "provisional", "until the end", "1.0", "goodbye"],
)
async def test_ways_to_answer(answer: bytes) -> None:
    async with Peer(answer).serving() as peer, pool() as made:
        assert await ask(made, peer) == (200, b"ok")
        assert await ask(made, peer) == (200, b"ok")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, MalformedAnswerError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, MalformedAnswerError),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", MalformedAnswerError),
        (b"SMTP ready\r\n\r\n", MalformedAnswerError),
        (None, UnreachableError),
    ],
    ids=["short", "chunk", "head", "large", "large head", "upgrade", "not http", "nothing"],
)
async def test_answers_that_are_none(answer: bytes | None, error: type[DriverError]) -> None:
    async with Peer(answer).serving() as peer, pool() as made:
        with pytest.raises(error):
            await ask(made, peer)
        assert await ask(made, peer) == (200, b"ok")


@pytest.mark.parametrize(("method", "works"), [("GET", True), ("DELETE", True), ("POST", False)])
async def test_a_kept_connection_that_breaks_is_replaced_where_that_is_safe(method: str, works: bool) -> None:
    async with Peer(OK, None).serving() as peer, pool() as made:
        assert (await ask(made, peer)).status == 200
        if works:
            assert (await ask(made, peer, method)).status == 200
            assert peer.connections == 2
        else:
            with pytest.raises(UnreachableError):
                await ask(made, peer, method)
        assert len(peer.requests) == (3 if works else 2)


async def test_idle_connections_are_closed_after_a_while() -> None:
    async with Peer().serving() as peer, pool(keepalive=0.05) as made:
        await asyncio.gather(*(ask(made, peer) for _ in range(3)))
        await until(lambda: _open(peer), lambda count: count == 0)
        assert not made._hosts


async def test_requests_wait_for_their_turn() -> None:
    async with Peer().serving() as peer, pool(most_per_host=2) as made:
        answers = await asyncio.gather(*(ask(made, peer) for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
        assert peer.connections <= 2


@pytest.mark.parametrize(
    "url",
    [
        "http://user:word@x/v1",
        "http://x/a b",
        "http://x/a\r\nX: y",
        "http://x/ä",
        "http://x/a#b",
        "http://x y/v1",
        "http:/x/v1",
        "http://x",
        "https://\x00/v1",
        "//x/v1",
    ],
)
async def test_urls_that_are_none(url: str) -> None:
    async with pool() as made:
        with pytest.raises(RequestRefusedError):
            await made.send("GET", url, body=None, authorization="x", max_bytes=10)


async def test_credentials_that_would_be_another_header() -> None:
    async with pool() as made:
        with pytest.raises(RequestRefusedError) as caught:
            await made.send("GET", "http://x/v1", body=None, authorization="x\r\nHost: y", max_bytes=10)
        assert "Host" not in str(caught.value)


class _Transport(asyncio.Transport):
    """Takes what is written, and is closed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@given(
    st.lists(st.sampled_from([OK, OK[:20], OK[20:], b"\r\n", b"5\r\n", GOODBYE]) | st.binary(), max_size=6)
)
def test_whatever_comes_is_an_answer_or_a_documented_error(parts: list[bytes]) -> None:
    async def story() -> None:
        line, transport = Line(), _Transport()
        line.connection_made(transport)
        asking = asyncio.ensure_future(line.ask(b"GET / HTTP/1.1\r\n\r\n", max_bytes=10))
        await asyncio.sleep(0)
        for part in parts:
            if not transport.closed:
                line.data_received(part)
        line.connection_lost(None)
        try:
            answer = await asking
        except (MalformedAnswerError, UnreachableError):
            pass
        else:
            assert answer.status >= 200
            assert len(answer.body) <= 10
        assert not line.usable

    asyncio.run(story())


async def _open(peer: Peer) -> int:
    return len(peer.open)
