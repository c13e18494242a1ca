"""HTTP for benchmarks: a client that costs as little as can be, and a stub of a cluster's management API.

The client keeps a fixed number of connections busy, one request at a time on each, and times every request.
The stub is started as `python -m bench._http`: it prints its port and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import msgspec
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outcome", "drive", "request_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run reached. Latencies in seconds, sorted; `failed` counts answers that were no 200."""

    rate: float
    latencies: list[float]
    failed: int

    def at(self, share: float) -> float:
        """Return the latency below which that share of the requests stayed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def request_bytes(path: str, body: object, headers: dict[str, str]) -> bytes:
    """Return a POST, ready to be sent."""
    data = msgspec.json.encode(body)
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def drive(port: int, next_request: Callable[[], bytes], *, connections: int, seconds: float) -> Outcome:
    """Send requests on so many connections for so long."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    failures: list[bytes] = []
    end = time.perf_counter() + seconds
    drivers = []
    for _ in range(connections):
        driver = _Driver(next_request, latencies, failures, end)
        await loop.create_connection(lambda driver=driver: driver, "127.0.0.1", port)  # type: ignore[misc]  # bound now
        drivers.append(driver)
    begin = time.perf_counter()
    for driver in drivers:
        driver.go()
    async with asyncio.timeout(seconds + 30):
        for driver in drivers:
            await driver.finished
    took = time.perf_counter() - begin
    if not latencies:
        raise RuntimeError(f"no request succeeded: {failures[:1]}")
    return Outcome(rate=len(latencies) / took, latencies=sorted(latencies), failed=len(failures))


class _Driver(asyncio.Protocol):
    def __init__(
        self,
        next_request: Callable[[], bytes],
        latencies: list[float],
        failures: list[bytes],
        end: float,
    ) -> None:
        self._next = next_request
        self._latencies = latencies
        self._failures = failures
        self._end = end
        self._buffer = b""
        self._begin = 0.0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_exception(exc or ConnectionError("the server closed the connection"))

    def go(self) -> None:
        self._begin = time.perf_counter()
        self._transport.write(self._next())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        if b" 200 " in head[:16]:
            self._latencies.append(now - self._begin)
        else:
            self._failures.append(self._buffer)
        self._buffer = b""
        if now < self._end:
            self.go()
        else:
            self.finished.set_result(None)
            self._transport.close()


# --- the stub ---------------------------------------------------------------------------------

_TOKEN: Final = base64.b64encode(
    msgspec.json.encode({"tokenId": "t", "host": "127.0.0.1:8080", "secure": False, "signature": "s" * 40})
)


class _Stub(asyncio.Protocol):
    """Answers every request at once: rooms by their name, tokens with one and the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lower = head.lower()
        if b"content-length:" in lower:
            length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
        self._buffer = b""
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/tokens"):
            answer = _TOKEN
        elif path.endswith(b"/rooms") and head.startswith(b"POST"):
            options = msgspec.json.decode(body).get("options", {})
            answer = msgspec.json.encode({"_id": options.get("_id", "room"), "name": "room"})
        else:
            answer = b"[]"
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


async def _stub() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Stub, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_stub())
