from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from causeway.errors import UnavailableError
from lab.cluster import main
from lab.portal_client import PortalClient, PortalClosedError
from lab.room_options import RoomOptions
from lab.room_rules import RoomError
from lab.rooms import RoomClosed, RoomNews, RoomOpened, Rooms, RunningRoom
from tests.lab.cluster_kit import bridge, lab_cluster, member, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# --- rooms: which exist, which run --------------------------------------------------------------------


def some_rooms() -> tuple[Rooms, list[tuple[str, RoomNews]]]:
    rooms = Rooms(cluster="c1", worker_id="conference-x@h")
    news: list[tuple[str, RoomNews]] = []

    def hear(running: RunningRoom, one: RoomNews) -> None:
        news.append((running.room.id, one))

    rooms.listeners.append(hear)
    rooms.create("room", RoomOptions(id="room"))
    return rooms, news


def test_a_room_runs_from_its_first_join_until_it_has_been_empty_for_long() -> None:
    rooms, news = some_rooms()
    assert rooms.running == []
    participant = rooms.join("room", user="u", role="viewer", portal="p")
    [running] = rooms.running
    assert running.node_id == "conference-x@h_0"
    assert rooms.by_node(running.node_id) is running
    assert news[0] == ("room", RoomOpened(running.room.token))
    assert len(bytes.fromhex(running.room.token)) == 32
    assert running.room.token not in repr(news[0])
    rooms.close_empty(0.0, linger=10)
    rooms.act("room", lambda room: room.leave(participant))
    rooms.close_empty(5.0, linger=10)
    rooms.close_empty(14.0, linger=10)
    assert rooms.running == [running]
    rooms.close_empty(15.0, linger=10)
    assert rooms.running == []
    assert rooms.by_node(running.node_id) is None
    assert news[-1] == ("room", RoomClosed())
    # The room exists on, and a later life is another one.
    rooms.join("room", user="u", role="viewer", portal="p")
    assert rooms.running[0].node_id == "conference-x@h_1"
    assert rooms.running[0].room.token != running.room.token


def test_coming_back_in_time_keeps_a_room() -> None:
    rooms, _ = some_rooms()
    first = rooms.join("room", user="u", role="viewer", portal="p")
    rooms.act("room", lambda room: room.leave(first))
    rooms.close_empty(0.0, linger=10)
    rooms.join("room", user="u", role="viewer", portal="p")
    rooms.close_empty(100.0, linger=10)
    assert len(rooms.running) == 1
    rooms.close_all()
    assert rooms.running == []


def test_a_refused_first_join_starts_nothing() -> None:
    rooms, news = some_rooms()
    with pytest.raises(RoomError):
        rooms.join("room", user="u", role="king", portal="p")
    with pytest.raises(RoomError):
        rooms.join("other", user="u", role="viewer", portal="p")
    with pytest.raises(RoomError):
        rooms.act("room", lambda room: room.close())
    assert (rooms.running, news) == ([], [])


# --- the cluster --------------------------------------------------------------------------------------


async def test_a_taken_port_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=str(port)):
            async with lab_cluster(port=port):
                pass
        with pytest.raises(UnavailableError, match=str(port)):
            async with lab_cluster(internal_port=port):
                pass


async def test_an_empty_room_is_closed_by_itself() -> None:
    async with lab_cluster(empty_room_linger=0.1) as cluster, bridge(cluster) as fake:
        async with member(cluster):
            assert len(cluster.rooms.running) == 1
        await until(lambda: cluster.rooms.running == [])
        await fake.was_asked("destroyRoom")
        assert [record.id for record in cluster.rooms.records] == ["room"]


async def test_secrets_left_open_are_drawn_so_that_nobody_gets_in() -> None:
    async with lab_cluster(node_secret="", service_key="") as cluster:
        assert len(cluster.settings.node_secret) == 64
        assert len(cluster.settings.service_key) == 64
        with pytest.raises(Exception, match="403"):
            async with bridge(cluster, secret=""):
                pass


async def test_an_error_of_whoever_uses_it_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with lab_cluster():
            raise KeyError


async def test_being_cancelled_stops_everything() -> None:
    up = asyncio.Event()

    async def run() -> None:
        async with lab_cluster():
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.wait_for(up.wait(), 5)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


# --- the process --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(config: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.cluster", "--config", str(config)),
        env={"PATH": os.environ.get("PATH", ""), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def connected(port: int) -> PortalClient:
    async with asyncio.timeout(20):
        while True:
            try:
                return await PortalClient.connect(f"ws://127.0.0.1:{port}/portal")
            except PortalClosedError:
                await asyncio.sleep(0.05)


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_time_and_standard_output_stays_empty(
    tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    config = tmp_path / "causeway.toml"
    config.write_text("[lab]\ncluster = 'c1'\n[control]\nport = 1\n")
    async with process(config, CAUSEWAY_LAB__PORT=str(port)) as running:
        async with await connected(port):
            began = time.monotonic()
            running.send_signal(number)
            out, log = await asyncio.wait_for(running.communicate(), 10)
        assert running.returncode == 0
        assert time.monotonic() - began < 3
        assert out == b""
        assert b"cluster.up" in log
        assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[lab]\nport = 'x'\n", "port"),
        ("[lab]\nunknown = 1\n", "unknown"),
        ("[lba]\n", "lba"),
        ("[lab", "not TOML"),
        ("[lab]\ncontrol_url = 'http://127.0.0.1:1'\n", "enrolment_key"),
        ("[lab]\ncontrol_url = 'x'\nenrolment_key = 'k'\n", "http(s) URL"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    tmp_path: Path, text: str, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process's own logging would outlive this test.
    monkeypatch.setattr("lab.cluster.telemetry.configure", lambda *_args, **_kwargs: None)
    config = tmp_path / "causeway.toml"
    config.write_text(text)
    assert main(["--config", str(config)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("20")]
    assert len(lines) == 1
    assert named in lines[0]


def test_a_port_in_use_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cluster.telemetry.configure", lambda *_args, **_kwargs: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("CAUSEWAY_LAB__PORT", str(taken.getsockname()[1]))
        assert main([]) == 1
