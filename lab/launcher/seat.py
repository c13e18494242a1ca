"""What the launcher keeps of one participant's process: its lines, in the scoreboard and in a file.

The file is for people and tests who want to know more than the table shows; it is bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from lab.launcher.scoreboard import Score, Scoreboard

__all__ = ["Seat"]

MAX_FILE_BYTES: Final = 16 << 20


class Seat:
    """Takes the lines of a participant; `ready` is the readiness condition of its process."""

    def __init__(
        self, scoreboard: Scoreboard, score: Score, file: Path, *, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        """`file` gets every line; beyond `max_bytes` it becomes `<file>.1` and begins anew."""
        self._scoreboard = scoreboard
        self._score = score
        self._file = file
        self._max_bytes = max_bytes
        self._written = 0
        self._file.unlink(missing_ok=True)  # of an earlier run
        self._joined = asyncio.Event()

    async def ready(self) -> None:
        """Return when the process that has just been started is in the conference."""
        self._scoreboard.started(self._score.name)
        self._joined.clear()
        await self._joined.wait()

    def take(self, line: bytes) -> None:
        """Take a line of the process's standard output."""
        self._scoreboard.take(self._score.name, line)
        self._keep(line)
        if self._score.joined:
            self._joined.set()

    def _keep(self, line: bytes) -> None:
        if self._written + len(line) > self._max_bytes and self._file.exists():
            self._file.replace(self._file.with_name(self._file.name + ".1"))
            self._written = 0
        with self._file.open("ab") as file:
            file.write(line)
        self._written += len(line)
