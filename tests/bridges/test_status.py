"""The status endpoint: where it may be, what it says, and whom it turns away."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import msgspec
import pytest

from bridges.agent import serve
from bridges.control.settings import ControlSettings
from bridges.settings import BridgeSettings
from bridges.status import places
from bridges.status.places import Http, Unix, find_sockets, parse
from bridges.status.server import status_endpoint
from bridges.status.settings import StatusSettings
from causeway.api.figures import BridgeFigures, LinkFigures, ProcessFigures
from causeway.errors import ConfigError, UnavailableError
from tests.bridges.node_stub import SECRET, NodeStub

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 10.0
BEGAN = datetime(2026, 11, 21, 12, tzinfo=UTC)
LINK = LinkFigures(kind="event", conference="standup", peer="east", state="up", messages_in=3)
FIGURES = ProcessFigures(
    cluster="west",
    version="1",
    started_at=BEGAN,
    at=BEGAN,
    bridges=[BridgeFigures(kind="event", port=7700, links=[LINK], counters={"framing": 2})],
)


async def same() -> ProcessFigures:
    return FIGURES


@pytest.fixture(autouse=True)
def runtime(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(state_folder))
    return state_folder / "causeway"


async def ask(where: str, url: str = "http://localhost/", method: str = "GET") -> httpx2.Response:
    uds = where.removeprefix("unix:") if where.startswith("unix:") else None
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=uds), timeout=WAIT) as client:
        return await client.request(method, url if uds else where)


async def figures_at(where: str) -> ProcessFigures:
    answer = await ask(where)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    return msgspec.json.decode(answer.content, type=ProcessFigures)


# --- where ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        ("off", None),
        ("unix:/run/causeway/bridge.sock", Unix(Path("/run/causeway/bridge.sock"))),
        ("http://127.0.0.1:7790", Http("127.0.0.1", 7790)),
        ("http://localhost:0/", Http("127.0.0.1", 0)),
        ("http://[::1]:7790", Http("::1", 7790)),
    ],
)
def test_places(listen: str, place: Unix | Http | None) -> None:
    assert parse(listen) == place


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "on",
        "unix:relative.sock",
        f"unix:/{'x' * 108}",
        "http://0.0.0.0:7790",
        "http://192.0.2.1:7790",
        "http://example.com:7790",
        "http://127.0.0.1",
        "http://127.0.0.1:99999",
        "http://me:secret@127.0.0.1:7790",
        "https://127.0.0.1:7790",
        "http://127.0.0.1:7790/status",
    ],
)
def test_other_places_are_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"bridge\.status\.listen"):
        parse(listen)


def test_each_process_has_a_socket_of_its_own_that_can_be_found(runtime: Path) -> None:
    one, other = parse("auto"), parse("auto")
    assert isinstance(one, Unix)
    assert isinstance(other, Unix)
    assert one != other
    assert one.path.parent == runtime
    assert find_sockets() == []
    places.make_folder(runtime)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    (runtime / "bridge-1.sock").touch()  # which is no socket
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(one.path))
        assert find_sockets() == [one.path]


def test_a_folder_that_others_may_write_is_not_used(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    with pytest.raises(PermissionError):
        places.make_folder(runtime)
    assert find_sockets() == []


# --- what it says -----------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["auto", "http://127.0.0.1:0"])
async def test_whoever_asks_is_told_the_figures(listen: str) -> None:
    async with status_endpoint(StatusSettings(listen=listen), same) as where:
        assert where is not None
        assert await figures_at(where) == FIGURES
        if where.startswith("unix:"):
            [path] = find_sockets()
            assert where == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_sockets() == []


async def test_nothing_else_is_there_and_nothing_can_be_changed() -> None:
    async with status_endpoint(StatusSettings(), same) as where:
        assert where is not None
        assert (await ask(where, "http://localhost/secrets")).status_code == 404
        assert (await ask(where, "http://localhost/", "POST")).status_code == 405
        assert (await ask(where, "http://127.0.0.1:7790/?x=1")).status_code == 200
        # A page whose name leads to this machine (DNS rebinding) reads nothing.
        for name in ("http://evil.example/", "http://localhost.evil.example/", "http://127.0.0.1.evil/"):
            assert (await ask(where, name)).status_code == 403


async def test_an_answer_is_given_again_for_a_moment() -> None:
    asked = 0

    async def figures() -> ProcessFigures:
        nonlocal asked
        asked += 1
        return msgspec.structs.replace(FIGURES, pid=asked)

    async with status_endpoint(StatusSettings(max_age=60.0), figures) as where:
        assert where is not None
        assert [(await figures_at(where)).pid for _ in range(3)] == [1, 1, 1]
    async with status_endpoint(StatusSettings(max_age=0.0), figures) as where:
        assert where is not None
        assert [(await figures_at(where)).pid for _ in range(3)] == [2, 3, 4]


async def test_readers_beyond_the_limit_are_turned_away_and_silent_ones_do_not_stay() -> None:
    settings = StatusSettings(max_clients=1, client_timeout=0.3)
    async with status_endpoint(settings, same) as where:
        assert where is not None
        reader, writer = await asyncio.open_unix_connection(where.removeprefix("unix:"))
        async with asyncio.timeout(WAIT):
            while (await ask(where)).status_code != 503:
                pass
            await reader.read()  # It says nothing, so it is left.
            while (await ask(where)).status_code != 200:
                pass
        writer.close()
        await writer.wait_closed()


async def test_no_request_at_all_harms_nobody() -> None:
    async with status_endpoint(StatusSettings(client_timeout=1.0), same) as where:
        assert where is not None
        for nonsense in (b"\x00" * 100, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000 + b"\r\n", b"x" * 200_000):
            reader, writer = await asyncio.open_unix_connection(where.removeprefix("unix:"))
            async with asyncio.timeout(WAIT):
                try:
                    writer.write(nonsense)
                    await reader.read()
                except ConnectionError:
                    pass  # It was left in the middle.
            writer.close()
        assert await figures_at(where) == FIGURES


# --- beginnings and ends ----------------------------------------------------------------------


async def test_off_is_off() -> None:
    async with status_endpoint(StatusSettings(listen="off"), same) as where:
        assert where is None
    assert find_sockets() == []


async def test_a_socket_that_a_killed_process_left_is_taken_and_a_living_one_is_not(
    state_folder: Path,
) -> None:
    path = state_folder / "bridge.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    settings = StatusSettings(listen=f"unix:{path}")
    async with status_endpoint(settings, same) as where:
        assert where is not None
        with pytest.raises(UnavailableError, match=r"cannot listen at unix:.*in use"):
            async with status_endpoint(settings, same):
                pass
        assert await figures_at(where) == FIGURES
    assert not path.exists()


async def test_what_killed_processes_left_is_tidied_up(runtime: Path) -> None:
    places.make_folder(runtime)
    long_ago = (1.0, 1.0)
    left = []
    for number in range(3):
        left.append(runtime / f"bridge-{number}-x.sock")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(left[-1]))
    os.utime(left[0], long_ago)
    with socket.socket(socket.AF_UNIX) as living:
        left[1].unlink()
        living.bind(str(left[1]))
        living.listen()
        os.utime(left[1], long_ago)
        async with status_endpoint(StatusSettings(), same) as where:
            assert where is not None
            mine = Path(where.removeprefix("unix:"))
            # One is dead; one is old and living, one may be a process that begins, one is ours.
            assert set(find_sockets()) == {left[1], left[2], mine}


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("make", [Path.touch, open_to_all])
async def test_where_no_place_was_named_the_bridge_runs_without(
    runtime: Path, make: Callable[[Path], None]
) -> None:
    make(runtime)
    async with status_endpoint(StatusSettings(), same) as where:
        assert where is None


async def test_a_place_that_was_named_has_to_work(state_folder: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot listen at"):
        async with status_endpoint(StatusSettings(listen=f"unix:{state_folder}/no/such.sock"), same):
            pass


# --- a process --------------------------------------------------------------------------------


async def test_a_running_process_shows_its_bridges_and_no_secret() -> None:
    async with NodeStub() as node:
        stop = asyncio.Event()
        control = ControlSettings(url="http://127.0.0.1:9", key="cw_enrolment_secret", region="eu")
        settings = BridgeSettings(
            cluster="west", node_url=node.url, node_secret=SECRET, control=control, kinds=("event", "media")
        )
        running = asyncio.create_task(serve(settings, stop=stop))
        await node.joined("eventbridge")
        await node.joined("mediabridge")
        async with asyncio.timeout(WAIT):
            while not find_sockets():
                await node.call(node.worker("eventbridge"), "getInfo")
        where = f"unix:{find_sockets()[0]}"
        said = await figures_at(where)
        assert (said.cluster, said.pid, [each.kind for each in said.bridges]) == (
            "west",
            os.getpid(),
            ["event", "media"],
        )
        assert all(each.node_connected and each.port for each in said.bridges)
        assert said.control is not None
        assert (said.control.connected, said.control.links_wanted) == (False, 0)
        body = (await ask(where)).text
        assert SECRET not in body
        assert "cw_enrolment" not in body
        stop.set()
        await running
        assert find_sockets() == []
