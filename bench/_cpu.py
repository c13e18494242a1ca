"""What processes use of the processors: CPU seconds from /proc, a server's with all its children."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Used", "postgres_of", "used"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Used(NamedTuple):
    """CPU seconds until now."""

    control: float
    postgres: float

    def since(self, before: Used) -> Used:
        """Return what was used from `before` to now."""
        return Used(self.control - before.control, self.postgres - before.postgres)


def used(control_pids: Iterable[int], postgres_pid: int) -> Used:
    """Return the CPU seconds of control's replicas and of Postgres until now."""
    total = 0.0
    for pid in _tree(postgres_pid):
        with suppress(OSError):
            total += _cpu_seconds(pid)
    return Used(sum(_cpu_seconds(pid) for pid in control_pids), total)


def postgres_of(state: Path) -> int:
    """Return the process id of the embedded Postgres."""
    (noted,) = state.rglob("postmaster.pid")
    return int(noted.read_text().split()[0])


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / _TICKS


def _tree(root: int) -> list[int]:
    """Return the process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found
