from __future__ import annotations

import asyncio
import io

from rich.console import Console

from lab.launcher.screen import Screen
from lab.launcher.table import Snapshot


class Counting:
    def __init__(self) -> None:
        self.looks = 0
        self.enough = asyncio.Event()

    def snapshot(self) -> Snapshot:
        self.looks += 1
        if self.looks == 3:
            self.enough.set()
        return Snapshot(elapsed=float(self.looks), doing="running")


async def shown(*, terminal: bool) -> str:
    view, output = Counting(), io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    task = asyncio.create_task(Screen(console, view, refresh=0.001, pause=0.001).run())
    await asyncio.wait_for(view.enough.wait(), 5)
    task.cancel()
    await asyncio.wait({task})
    return output.getvalue()


async def test_without_a_terminal_there_are_plain_lines() -> None:
    lines = (await shown(terminal=False)).splitlines()
    assert lines[0] == "  1.0 s  running | clusters 0/0 | links up 0/0 | events 0 | frames 0 | 0 bit/s"
    assert not [line for line in lines if "\x1b" in line]


async def test_on_a_terminal_there_is_a_table() -> None:
    output = await shown(terminal=True)
    assert "participant" in output
    assert "\x1b" in output
