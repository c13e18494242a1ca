"""Shows the laboratory while it runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from rich.live import Live

from lab.launcher.table import line, render

if TYPE_CHECKING:
    from rich.console import Console

    from lab.launcher.table import Snapshot

__all__ = ["Screen", "Viewed"]


class Viewed(Protocol):
    """Something that can be looked at."""

    def snapshot(self) -> Snapshot:
        """Return everything at this moment."""


class Screen:
    """`run` shows `view` until cancelled. `refresh` and `pause` are seconds between two tables or lines."""

    def __init__(self, console: Console, view: Viewed, *, refresh: float = 0.5, pause: float = 1.0) -> None:
        self._console = console
        self._view = view
        self._refresh = refresh
        self._pause = pause

    async def run(self) -> None:
        """Show until cancelled; the last table stays on the terminal."""
        if self._console.is_terminal:
            await self._run_live()
        while True:
            self._console.print(line(self._view.snapshot()), soft_wrap=True, markup=False)
            await asyncio.sleep(self._pause)

    async def _run_live(self) -> None:
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as live:
            try:
                while True:
                    live.update(render(self._view.snapshot()), refresh=True)
                    await asyncio.sleep(self._refresh)
            finally:
                live.update(render(self._view.snapshot()), refresh=True)
