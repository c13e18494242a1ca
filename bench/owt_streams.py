"""How many conferences a connection of OWT's wire should carry: what an event costs, and what idling costs.

    python bench/owt_streams.py                      192 conferences, 1 to 96 on a connection
    python bench/owt_streams.py --conferences 1000 --per-connection 16 32 64

Both ends are in one process on loopback, so that its CPU time is that of a whole link. Each conference is one
stream that stays open. An event (300 bytes) goes over a random one; `sparse` sends each in a turn of its own,
as conferences do that have little to say, `dense` sixteen in a turn. `idle` is the CPU time that the
connections take in a second without a word: every one of them is kept alive by PINGs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from bench._machine import report
from bridges.quic import Certificate, QuicSettings, dial, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bridges.quic import Connection

_EVENT: Final = bytes(300)
_SETTINGS: Final = QuicSettings(
    max_streams=128,
    idle_timeout=30.0,
    max_unverified=4096,
    max_unverified_per_address=4096,
    verify_timeout=600.0,
    retry_above=4096,
    handshake_burst=4096,
    handshake_timeout=30.0,
)
_DENSE: Final = 16
_IDLE_SECONDS: Final = 5.0
_IN_FLIGHT: Final = 256


class _Counter:
    """A handler that counts bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.came = asyncio.Event()

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:  # noqa: ARG002, FBT001 - the protocol's
        """Count."""
        self.bytes += len(data)
        self.came.set()

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Nobody resets."""

    def connection_lost(self, reason: str) -> None:  # noqa: ARG002 - the protocol's
        """Wake who waits."""
        self.came.set()

    async def until(self, count: int) -> None:
        """Wait until so many bytes have come."""
        async with asyncio.timeout(120):
            while self.bytes < count:
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def _link(
    conferences: int, places: int
) -> AsyncIterator[tuple[list[tuple[Connection, int]], _Counter]]:
    """Open a stream for each conference, `places` on a connection."""
    counter, certificate = _Counter(), Certificate.self_signed("bench")
    listener = await listen(
        "127.0.0.1", 0, certificate=certificate, on_connection=lambda _: counter, settings=_SETTINGS
    )
    connections: list[Connection] = []
    streams: list[tuple[Connection, int]] = []
    for number in range(conferences):
        if number % places == 0:
            connection = await dial(
                "127.0.0.1", listener.port, fingerprint=certificate.fingerprint, settings=_SETTINGS
            )
            connection.handler = counter
            connections.append(connection)
        stream = connections[-1].open_stream()
        connections[-1].send(stream, b"\0")
        streams.append((connections[-1], stream))
    await counter.until(conferences)
    yield streams, counter
    for connection in connections:
        connection.close()
        await connection.wait_closed()
    listener.close()


async def _send(
    streams: Sequence[tuple[Connection, int]], counter: _Counter, *, events: int, batch: int
) -> float:
    """Return the CPU time of an event, in microseconds."""
    draw = random.Random(1)
    begun, base = time.process_time(), counter.bytes
    for sent in range(0, events, batch):
        for _ in range(batch):
            connection, stream = draw.choice(streams)
            connection.send(stream, _EVENT)
        await counter.until(base + (sent + batch - _IN_FLIGHT) * len(_EVENT))
        await asyncio.sleep(0)
    await counter.until(base + events * len(_EVENT))
    return (time.process_time() - begun) / events * 1e6


async def run(conferences: int, per_connection: Sequence[int], *, events: int) -> None:
    """Measure everything and print it."""
    figures: dict[str, float] = {}
    print("per connection  connections  sparse µs/event  dense µs/event  idle ms CPU/s")
    for places in per_connection:
        async with _link(conferences, places) as (streams, counter):
            await _send(streams, counter, events=_DENSE * 20, batch=_DENSE)  # warm
            sparse = await _send(streams, counter, events=events, batch=1)
            dense = await _send(streams, counter, events=events, batch=_DENSE)
            begun = time.process_time()
            await asyncio.sleep(_IDLE_SECONDS)
            idle = (time.process_time() - begun) / _IDLE_SECONDS * 1e3
        connections = -(-conferences // places)
        print(f"{places:14d}  {connections:11d}  {sparse:15.0f}  {dense:14.0f}  {idle:13.1f}", flush=True)
        figures |= {
            f"sparse_us_{places}": sparse,
            f"dense_us_{places}": dense,
            f"idle_ms_per_s_{places}": idle,
        }
    report("owt_streams", figures)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conferences", type=int, default=192)
    parser.add_argument("--per-connection", type=int, nargs="+", default=[1, 4, 16, 32, 64, 96])
    parser.add_argument("--events", type=int, default=3200)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    asyncio.run(run(options.conferences, options.per_connection, events=options.events))


if __name__ == "__main__":
    main()
