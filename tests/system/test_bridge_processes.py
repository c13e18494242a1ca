"""`causeway bridge --workers`: several real bridge processes at one real cluster share its rooms."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from causeway.cli import cli
from tests.lab.cluster_kit import SECRET, lab_cluster, rest, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lab.cluster import Cluster
    from tests.lab.cluster_kit import Rest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WAIT = 30.0
ROOMS = [f"room-{number}" for number in range(6)]


@asynccontextmanager
async def bridges(
    cluster: Cluster, *options: str, runtime: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command beside a cluster."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "causeway", "bridge", "--cluster", "c1", "--kinds", "event,media"),
        *("--node-url", f"ws://127.0.0.1:{cluster.port}/node", *options),
        env=os.environ | {"CAUSEWAY_BRIDGE__NODE_SECRET": SECRET, "XDG_RUNTIME_DIR": str(runtime)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), WAIT)


def children(process: asyncio.subprocess.Process) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def ports(call: Rest) -> dict[str, tuple[int, int]]:
    """Return which ports peers are told to dial, for events and media, by room."""
    found = {}
    for room in ROOMS:
        status, answer = await call("GET", f"rooms/{room}/bridges", {"targetCluster": "c2"})
        assert status == 200, answer
        found[room] = (answer["eventbridgeport"], answer["mediabridgeport"])
    return found


def shown(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    result = CliRunner().invoke(cli, ["bridge", "status", "--json"])
    assert result.exit_code == 0, result.output
    return list(msgspec.json.decode(result.output))


async def test_rooms_are_spread_and_move_when_a_process_dies(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        lab_cluster() as cluster,
        rest(cluster) as call,
        bridges(cluster, "--workers", "2", runtime=state_folder) as process,
    ):
        for room in ROOMS:
            await call("POST", "rooms", {"name": room, "options": {"_id": room}})
        await until(lambda: len(cluster.workers.all) == 4, timeout=WAIT)
        before = await ports(call)
        pairs = set(before.values())
        assert len(pairs) == 2, "each room has the two bridges of one process"
        assert sorted(list(before.values()).count(pair) for pair in pairs) == [3, 3]
        assert before == await ports(call), "and keeps them"

        figures = await asyncio.to_thread(shown, state_folder, monkeypatch)
        assert {each["pid"] for each in figures} == set(children(process))
        by_port = {bridge["port"]: each["pid"] for each in figures for bridge in each["bridges"]}
        died = before[ROOMS[0]]
        os.kill(by_port[died[0]], signal.SIGKILL)
        await until(lambda: len(cluster.workers.all) == 2, timeout=WAIT)
        (other,) = pairs - {died}
        moved = await ports(call)
        assert died not in moved.values()
        assert all(moved[room] == other for room in ROOMS if before[room] == other)
        await until(lambda: len(cluster.workers.all) == 4, timeout=WAIT)
        assert by_port[died[0]] not in children(process)

        left = children(process)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), WAIT) == 0
        assert not any(map(is_there, left))
        await until(lambda: not cluster.workers.all, timeout=WAIT)
