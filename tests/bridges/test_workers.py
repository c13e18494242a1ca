"""Several bridge processes in place of one: what each is told, and how they are kept running."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.settings import BridgeSettings, Settings
from bridges.workers import count_of, settings_of, supervise
from causeway.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 20.0
CHILD = """
import json, os, sys, time
told = json.load(sys.stdin)["bridge"]
number, folder = sys.argv[1], told["node_secret"]
os.write(os.open(f"{folder}/{number}", os.O_CREAT | os.O_APPEND | os.O_WRONLY), f"{os.getpid()}\\n".encode())
if "fail" in told["node_url"]:
    sys.exit(1)
time.sleep(3600)
"""
COMMAND = (sys.executable, "-c", CHILD)


def bridge(**changes: Any) -> BridgeSettings:
    return BridgeSettings(**{"cluster": "west", "workers": 3, **changes})


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - other processes give no notice
            await asyncio.sleep(0.02)


def started(folder: Path) -> dict[str, list[int]]:
    """Return the process ids of each number, one after the other."""
    return {
        file.name: [int(line) for line in file.read_text(encoding="ascii").split()]
        for file in folder.iterdir()
    }


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_each_process_has_what_must_not_be_shared() -> None:
    shares = settings_of(
        msgspec.convert(
            {
                "cluster": "west",
                "workers": 3,
                "event_port": 7700,
                "media_port": 7710,
                "status": {"listen": "unix:/run/causeway/west"},
                "control": {"url": "https://c.example", "key": "k", "region": "eu", "agent": "a"},
            },
            BridgeSettings,
        )
    )
    assert [share.workers for share in shares] == [1, 1, 1]
    assert [share.event_port for share in shares] == [7700, 7701, 7702]
    assert [share.media_port for share in shares] == [7710, 7711, 7712]
    assert [share.control.agent for share in shares] == ["a", "a.1", "a.2"]
    places = [share.status.listen for share in shares]
    assert places == [
        "unix:/run/causeway/west",
        "unix:/run/causeway/west.1",
        "unix:/run/causeway/west.2",
    ]


@pytest.mark.parametrize(
    ("listen", "second"),
    [
        ("auto", "auto"),
        ("off", "off"),
        ("http://127.0.0.1:7790", "http://127.0.0.1:7791"),
        ("http://[::1]:7790", "http://[::1]:7791"),
        ("http://127.0.0.1:0", "http://127.0.0.1:0"),
    ],
)
def test_each_process_shows_its_figures_at_a_place_of_its_own(listen: str, second: str) -> None:
    settings = msgspec.convert({"cluster": "w", "workers": 2, "status": {"listen": listen}}, BridgeSettings)
    assert [share.status.listen for share in settings_of(settings)] == [listen, second]


@given(st.integers(1, 256), st.sampled_from([0, 1, 7700, 65_000]), st.sampled_from([0, 7700, 7801, 65_535]))
def test_ports_are_never_taken_twice(workers: int, event: int, media: int) -> None:
    try:
        shares = settings_of(bridge(workers=workers, event_port=event, media_port=media))
    except ConfigError as error:
        assert "bridge.workers" in str(error)  # noqa: PT017 - either that, or what follows
        return
    ports = [port for share in shares for port in (share.event_port, share.media_port) if port]
    assert len(set(ports)) == len(ports)
    assert all(port <= 65_535 for port in ports)
    assert len({share.control.agent for share in shares}) == workers, "two with one name would take turns"


def test_without_a_number_every_core_gets_one() -> None:
    assert count_of(bridge(workers=0)) == len(os.sched_getaffinity(0))
    assert count_of(bridge(workers=7)) == 7


async def test_a_process_that_dies_is_started_again_and_all_end_together(tmp_path: Path) -> None:
    settings = Settings(bridge=bridge(workers=2, node_secret=str(tmp_path)))
    stop = asyncio.Event()
    running = asyncio.create_task(supervise(settings, COMMAND, stop=stop))
    await until(lambda: set(started(tmp_path)) == {"0", "1"} and all(started(tmp_path).values()))
    first = started(tmp_path)
    os.kill(first["1"][0], 9)
    await until(lambda: len(started(tmp_path)["1"]) == 2)
    assert started(tmp_path)["0"] == first["0"], "the other one goes on"
    stop.set()
    await asyncio.wait_for(running, WAIT)
    assert not any(is_there(pid) for pids in started(tmp_path).values() for pid in pids)


async def test_one_that_cannot_begin_ends_them_all(tmp_path: Path) -> None:
    settings = Settings(bridge=bridge(workers=2, node_url="ws://fail/node", node_secret=str(tmp_path)))
    with pytest.raises(UnavailableError, match=r"bridge process [01] could not begin"):
        await asyncio.wait_for(supervise(settings, COMMAND, stop=asyncio.Event()), WAIT)
    assert not any(is_there(pid) for pids in started(tmp_path).values() for pid in pids)


async def test_cancelled_from_outside_it_leaves_nothing_running(tmp_path: Path) -> None:
    settings = Settings(bridge=bridge(workers=1, node_secret=str(tmp_path)))
    running = asyncio.create_task(supervise(settings, COMMAND, stop=asyncio.Event()))
    await until(lambda: any(started(tmp_path).values()))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(is_there(pid) for pids in started(tmp_path).values() for pid in pids)
