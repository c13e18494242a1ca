"""`causeway conference events` and `history` against a real service."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from control.registry import events
from control.registry.store import Store
from tests.causeway.test_cli_remote import terminal

if TYPE_CHECKING:
    import pytest


async def test_events_and_history_are_shown(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        terminal(database_url, monkeypatch, capsys) as shell,
        shell.service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        await shell.service.create("c")
        await shell.service.join("c")
        await eu.enter("c", "p1", user="ada\x1b[31m")
        await eu.report("PUT", "/rooms/c/streams/s1", {"participant": "p1", "tracks": [{"kind": "audio"}]})
        drawn = await shell.out("conference", "events", "c")
        assert "participant.joined" in drawn
        assert "\x1b" not in drawn
        listed = await shell.read("conference", "events", "c", "--after", "1")
        assert [each["seq"] for each in listed] == list(range(2, listed[-1]["seq"] + 1))
        state = await shell.read("conference", "history", "c")
        assert [each["id"] for each in state["streams"]] == ["s1"]
        joined = next(each for each in listed if each["kind"] == "participant.joined")
        drawn = await shell.out("conference", "history", "c", "--at", joined["at"])
        assert "p1" in drawn
        assert "s1" not in drawn
        assert "s1" in await shell.out("conference", "show", "c")
        assert "404 conference-unknown" in await shell.error("conference", "history", "none")
        assert "conference-unknown" in await shell.error("conference", "history", "c", "--at", "2020-01-01")
        code, _, err = await shell.run("conference", "history", "c", "--at", "noon")
        assert (code, err) == (2, "causeway: --at: not a time: noon\n")


async def test_following_ends_with_the_conference(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        await shell.service.create("c")
        store = Store(shell.service.engine)

        async def happen() -> None:
            for n in range(3):
                await store.write(events.write, "c", "participant.moved", {"n": n})
            answer = await shell.service.application.delete("/v1/conferences/c")
            assert answer.status_code in {202, 204}

        happening = asyncio.create_task(happen())
        out = await shell.out("conference", "events", "c", "--follow", "--after", "0")
        await happening
        assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4", "5", "6"]
        assert "conference.ended" in out.splitlines()[-1]
        lines = await shell.out("conference", "events", "c", "--follow", "--after", "1", "--json")
        assert [json.loads(line)["seq"] for line in lines.splitlines()] == [2, 3, 4, 5, 6]
