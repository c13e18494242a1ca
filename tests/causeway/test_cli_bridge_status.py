"""`causeway bridge status` against real endpoints; and how figures are drawn, wherever they come from."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from bridges.status.server import status_endpoint
from bridges.status.settings import StatusSettings
from causeway.api.agents import AgentAddresses, AgentCapacity, AgentFigures, AgentLoad, AgentView
from causeway.api.figures import (
    BridgeFigures,
    ControlFigures,
    LinkFigures,
    OriginFigures,
    PeerFigures,
    ProcessFigures,
)
from causeway.api.plans import LinkEnd
from causeway.cli import run
from causeway.cli.agent import _draw as draw_agent
from causeway.cli.figures import draw_ends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BEGAN = datetime(2026, 11, 21, 12, tzinfo=UTC)
UP = LinkFigures(
    kind="event",
    conference="standup",
    peer="eu-1",
    state="up",
    since=BEGAN,
    wire="causeway/1",
    origins=[OriginFigures(origin="ap-1", incarnation="1a", seq=41, told=40, hops=2)],
    lag_out=2,
    lag_ms=12.0,
    messages_in=41,
    bytes_in=41_000,
    reconnects=3,
    resumes=2,
    round_trip_ms=81.46,
)
DOWN = LinkFigures(
    kind="media", conference="retro", peer="ap-1", role="listener", error="reset\x1b[2J by the peer"
)
WEST = ProcessFigures(
    cluster="us-1",
    version="0.1",
    pid=11,
    started_at=BEGAN,
    at=BEGAN,
    bridges=[
        BridgeFigures(
            kind="event",
            port=7700,
            node_connected=True,
            links=[UP],
            peers=[PeerFigures(kind="event", peer="eu-1", wires=["causeway/1"], connections=1, links=1)],
            counters={"token_refused": 4},
        ),
        BridgeFigures(kind="media", port=7701, links=[DOWN]),
    ],
    control=ControlFigures(agent="bridge-us-1", connected=True, version=7, links_wanted=2, links_up=1),
)
EAST = msgspec.structs.replace(WEST, cluster="eu-1", pid=12, bridges=[], control=None)


@pytest.fixture(autouse=True)
def runtime(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(state_folder))


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str], where: list[str]) -> None:
        self._capsys = capsys
        self.where = where

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, ["bridge", "status", *arguments])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def out(self, *arguments: str) -> str:
        code, out, err = await self.run(*arguments)
        assert code == 0, err
        return out


async def _same(process: ProcessFigures) -> ProcessFigures:
    return process


@asynccontextmanager
async def showing(
    capsys: pytest.CaptureFixture[str], *processes: ProcessFigures, listen: str = "auto"
) -> AsyncIterator[Shell]:
    with capture_logs():  # which would else be the command's output
        async with AsyncExitStack() as stack:
            settings = StatusSettings(listen=listen)
            where = [
                await stack.enter_async_context(status_endpoint(settings, partial(_same, process)))
                for process in processes
            ]
            yield Shell(capsys, [each for each in where if each is not None])


async def test_all_bridges_of_this_machine_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async with showing(capsys, WEST, EAST) as shell:
        said = await shell.out()
        for words in (
            "cluster us-1, process 11",
            "cluster eu-1, process 12",
            "agent bridge-us-1, connected, acts on version 7, 1 of 2 links up",
            "no agent of control",
            "event bridge, UDP port 7700, joined its cluster",
            "media bridge, UDP port 7701, is NOT connected to its cluster",
            "→ eu-1",
            "← ap-1",
            "up since 11-21 12:00:00",
            "41, 41 kB",
            "81.5 ms",
            "resumed 2; oldest waits 12.0 ms",
            "token_refused",
            "events by origin",
        ):
            assert words in said.replace("41000 B", "41 kB"), said
        assert "\x1b" not in said
        assert r"reset\x1b[2J by the peer" in said
        told = json.loads(await shell.out("--json"))
        assert {each["cluster"] for each in told} == {"us-1", "eu-1"}
        assert msgspec.convert(told, list[ProcessFigures]) in ([WEST, EAST], [EAST, WEST])


async def test_what_is_shown_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    async with showing(capsys, WEST, EAST) as shell:
        assert "process 11" not in await shell.out("--cluster", "eu-1")
        assert "retro" not in await shell.out("--conference", "standup")
        down = await shell.out("--down")
        assert "retro" in down
        assert "standup" not in down
        code, out, err = await shell.run("--cluster", "nowhere")
        assert (code, out, err.count("\n")) == (1, "", 1)


async def test_one_endpoint_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with showing(capsys, WEST, listen="http://127.0.0.1:0") as shell:
        assert "process 11" in await shell.out("--at", shell.where[0])
        code, _, err = await shell.run()
        assert (code, "no bridge runs here" in err) == (1, True)
    async with showing(capsys, WEST) as shell:
        assert "process 11" in await shell.out("--at", shell.where[0])


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("http://127.0.0.1:9", 1),
        ("unix:/nonexistent/bridge.sock", 1),
        ("http://192.0.2.1:80", 2),
        ("auto", 2),
        ("off", 2),
        ("nonsense", 2),
    ],
)
def test_endpoints_that_are_none_are_one_line(at: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bridge", "status", "--at", at]) == code
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("causeway: ")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"HTTP/1.1 500 No\r\n\r\n", b"\x00", b""]
)
async def test_somebody_elses_server_is_one_line(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        code, out, err = await Shell(capsys, []).run("--at", f"http://127.0.0.1:{port}")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_the_ends_of_links_are_drawn_with_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    draw_ends([])
    assert capsys.readouterr().out == ""
    draw_ends([LinkEnd(cluster="us-1", agent="bridge-us-1", told_at=BEGAN, figures=UP)])
    said = capsys.readouterr().out
    for words in ("us-1", "→ eu-1", "causeway/1", "2026-11-21 12:00:00"):
        assert words in said


def test_what_became_of_media_on_our_own_wire_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    link = LinkFigures(
        kind="media",
        conference="retro",
        peer="ap-1",
        wire="causeway/1",
        datagrams_lost=31,
        datagrams_repeated=29,
        datagrams_parity=17,
        datagrams_recovered=5,
        queued_bytes=4000,
        held_bytes=600,
        internal_bytes=700,
        tracks_slowed=2,
    )
    draw_ends([LinkEnd(cluster="us-1", agent="bridge-us-1", told_at=BEGAN, figures=link)])
    said = capsys.readouterr().out
    for words in (
        "lost 31",
        "sent again 29",
        "parity 17",
        "recovered 5",
        "4000 B to be sent",
        "600 B incomplete",
        "700 B not taken here",
        "asked for less 2",
    ):
        assert words in " ".join(said.split())


def test_an_agent_is_drawn_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    view = AgentView(
        id="bridge-us-1",
        cluster="us-1",
        region="us",
        kinds=["event", "media"],
        state="online",
        state_since=BEGAN,
        version="0.1",
        protocol=1,
        instance="i1",
        epoch=1,
        addresses=AgentAddresses(),
        capacity=AgentCapacity(conferences=7),
        load=AgentLoad(),
        conferences=1,
        connected=True,
        last_seen_at=BEGAN,
        lease_expires_at=BEGAN,
        drain_since=None,
        desired_version=7,
        acked_version=7,
        refused=[],
        figures=AgentFigures(told_at=BEGAN, bridges=WEST.bridges),
    )
    draw_agent(view)
    said = capsys.readouterr().out
    for words in ("measured at", "connections", "causeway/1", "refused by the event bridge", "token_refused"):
        assert words in said
    draw_agent(msgspec.structs.replace(view, figures=None))
    assert "connections" not in capsys.readouterr().out
