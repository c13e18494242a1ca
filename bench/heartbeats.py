"""What heartbeats cost: clusters that beat once a second, and the cores that control and its Postgres use.

    python bench/heartbeats.py                       1,000 clusters, then 5,000
    python bench/heartbeats.py --clusters 1000 --seconds 60

Control is the real `causeway control` with its embedded Postgres, with default settings but for the number of
connections, idle times and the length of leases. Each cluster is registered, and beats over a keep-alive
connection (up to 1,000 of them, shared beyond that); load comes from a process of its own. Cores are CPU
seconds from /proc by wall-clock seconds, Postgres with all its children. Afterwards every cluster must still
be online.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._cpu import postgres_of, used
from bench._machine import report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.connection import Connection

_CONNECTIONS = 1000
_INTERVAL = 1.0
_REGISTER_AT_ONCE = 16


# --- the clusters, in a process of their own ---------------------------------------------------


class Line:
    """A keep-alive connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    async def ask(self, method: str, path: str, body: bytes, *, epoch: int | None = None) -> bytes:
        """Send a request and return the body of its answer, which must be 200."""
        fenced = "" if epoch is None else f"Causeway-Epoch: {epoch}\r\n"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\n{fenced}Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        content = await self._reader.readexactly(int(length[1]) if length else 0)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{method} {path}: {answer[:40]!r} {content!r}")
        return content


async def beat_all(port: int, key: str, clusters: int, seconds: float, told: Connection) -> None:
    """Register the clusters, then beat for so long; tell the parent when that begins and what came of it."""
    count = min(clusters, _CONNECTIONS)
    lines = [Line(*await asyncio.open_connection("127.0.0.1", port), key) for _ in range(count)]
    latencies: list[float] = []
    failures = 0
    epochs: dict[int, int] = {}

    at_once = asyncio.Semaphore(_REGISTER_AT_ONCE)

    async def register(line: Line, mine: list[int]) -> None:
        async with at_once:
            await register_all(line, mine)

    async def register_all(line: Line, mine: list[int]) -> None:
        for number in mine:
            body = {
                "region": f"region-{number % 20}",
                "rest_url": f"http://192.0.2.1:{number + 1}",
                "service_id": "service",
                "service_key": "key",
                "instance": f"deployment-{number}",
                "incarnation": "1",
                "labels": {"tier": "gold"},
            }
            answer = await line.ask("PUT", f"/v1/clusters/c-{number}", json.dumps(body).encode())
            epochs[number] = json.loads(answer)["epoch"]

    async def beat(line: Line, mine: list[int], begin: float, end: float) -> None:
        nonlocal failures
        # Spread over the second as real ones are.
        due = [
            (begin + _INTERVAL * index / len(mine) + random.random() / len(mine), n)
            for index, n in enumerate(mine)
        ]
        while due and due[0][0] < end:
            at, number = due.pop(0)
            due.append((at + _INTERVAL, number))
            await asyncio.sleep(at - time.monotonic())
            load = {
                "participants": number % 100,
                "streams": number % 300,
                "cpu": random.random(),
                "bandwidth_in": 10_000_000,
                "bandwidth_out": 30_000_000,
                "modules": {"portal": 0.1, "webrtc": 0.5, "conference": 0.2},
            }
            sent = time.monotonic()
            try:
                await line.ask(
                    "POST",
                    f"/v1/clusters/c-{number}/heartbeat",
                    json.dumps({"load": load}).encode(),
                    epoch=epochs[number],
                )
            except RuntimeError:
                failures += 1
            latencies.append(time.monotonic() - sent)

    shares = [list(range(index, clusters, count)) for index in range(count)]
    begin = time.monotonic()
    await asyncio.gather(*(register(line, mine) for line, mine in zip(lines, shares, strict=True)))
    took = time.monotonic() - begin
    begin = time.monotonic()
    told.send(("beating", took))
    await asyncio.gather(
        *(beat(line, mine, begin, begin + seconds) for line, mine in zip(lines, shares, strict=True))
    )
    percentiles = statistics.quantiles(latencies, n=100)
    told.send(
        (
            "done",
            {
                "beats_per_s": len(latencies) / (time.monotonic() - begin),
                "refused": failures,
                "p50_ms": percentiles[49] * 1000,
                "p99_ms": percentiles[98] * 1000,
            },
        )
    )


def clusters_process(port: int, key: str, clusters: int, seconds: float, told: Connection) -> None:
    """Run the clusters."""
    asyncio.run(beat_all(port, key, clusters, seconds, told))


# --- control, and what it uses ----------------------------------------------------------------


@asynccontextmanager
async def control(state: Path) -> AsyncIterator[tuple[int, int, dict[str, str]]]:
    """Run `causeway control`; yield its process id, its port and its keys."""
    environment = os.environ | {
        "CAUSEWAY_CONTROL__HTTP__MAX_CONNECTIONS": "8192",
        "CAUSEWAY_CONTROL__HTTP__KEEP_ALIVE": "300",
        "CAUSEWAY_CONTROL__HTTP__HEAD_TIMEOUT": "300",
        "CAUSEWAY_CONTROL__LEASE__TTL": "300",  # so that those registered first do not expire meanwhile
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "causeway", "control", "--port", "0", "--state", str(state)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        text = ""
        async with asyncio.timeout(120):
            while (listening := re.search(r"listening on \S+:(\d+)\s", text)) is None:
                line = await process.stdout.readline()
                if not line:
                    raise RuntimeError(f"control ended: {text}")
                text += line.decode()
        keys = dict(re.findall(r"(\w+) +(cw_\1_[0-9a-f]{12}_[0-9a-f]{64})", text))
        yield process.pid, int(listening[1]), keys
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(30):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def measure(clusters: int, seconds: float) -> dict[str, float]:
    """Run one size in a fresh service."""
    with tempfile.TemporaryDirectory(prefix="causeway-bench-", dir="/tmp") as folder:
        os.chmod(folder, 0o711)  # noqa: PTH101 - once, before anything is measured
        state = Path(folder) / "state"
        async with control(state) as (pid, port, keys):
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            arguments = (port, keys["enrolment"], clusters, seconds, theirs)
            load = context.Process(target=clusters_process, args=arguments, daemon=True)
            load.start()
            theirs.close()
            try:
                _, registering = await asyncio.to_thread(ours.recv)
                postgres = postgres_of(state)
                before, begin = used([pid], postgres), time.monotonic()
                _, figures = await asyncio.to_thread(ours.recv)
                spent, took = used([pid], postgres).since(before), time.monotonic() - begin
            finally:
                load.terminate()
                load.join()
            online = await count_online(port, keys["operator"])
    figures |= {
        "control_cores": spent.control / took,
        "postgres_cores": spent.postgres / took,
        "registrations_per_s": clusters / registering,
        "not_online": clusters - online,
    }
    print(f"{clusters} clusters, {took:.0f} s:")
    for name, value in figures.items():
        print(f"  {name:22} {value:10.3f}")
    return {f"{name}_{clusters}": value for name, value in figures.items()}


async def count_online(port: int, key: str) -> int:
    """Return how many clusters are online, or suspect: the beats have just stopped."""
    line = Line(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26), key)
    listed: dict[str, Any] = json.loads(await line.ask("GET", "/v1/clusters", b""))
    return sum(each["state"] in {"online", "suspect"} for each in listed["clusters"])


async def main() -> None:
    """Measure, and print the line of JSON."""
    parser = argparse.ArgumentParser(description="Cores that heartbeats cost.")
    parser.add_argument("--clusters", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for clusters in options.clusters:
        figures |= await measure(clusters, options.seconds)
    report("heartbeats", figures)


if __name__ == "__main__":
    asyncio.run(main())
