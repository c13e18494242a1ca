"""Which process owns the embedded server of a state folder: two file locks, no process ids.

`owner.lock` is held by the owner and inherited by the server, so it is free when both are gone: a successor
never meets a server that is still shutting down. `owner.alive` is held by the owner alone, so that a guest
can tell a server that is in use from one whose owner was killed and that will follow in a moment. The content
of `owner.lock` says where the server listens, once it is ready.

Locks are flock(2)'s: they belong to the open file, work across containers and end with the last holder.
Knows nothing of Postgres.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

__all__ = ["Ownership"]


class Ownership:
    """The state of one folder's locks, as one process sees and changes it. Calls never block."""

    def __init__(self, lock: int, alive: int) -> None:
        self._lock = lock
        self._alive = alive

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the two files, making them if missing; raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(folder / "owner.lock", flags, 0o600)
        try:
            return cls(lock, os.open(folder / "owner.alive", flags, 0o600))
        except OSError:
            os.close(lock)
            raise

    @property
    def inherited(self) -> int:
        """The descriptor that the server must inherit."""
        return self._lock

    def take(self) -> bool:
        """Become the owner if there is none; False: try again, or use what `server` tells."""
        if not _locked(self._lock):
            return False
        if not _locked(self._alive):  # a guest is looking, see below
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            return False
        os.ftruncate(self._lock, 0)
        return True

    def announce(self, socket: Path) -> None:
        """Tell everybody where our server listens."""
        os.pwrite(self._lock, f"{socket}\n".encode(), 0)

    def server(self) -> Path | None:
        """Return where the present owner's server listens; None without an owner or before it is ready."""
        if _locked(self._alive):
            fcntl.flock(self._alive, fcntl.LOCK_UN)
            return None
        text = os.pread(self._lock, 4096, 0).decode(errors="replace")
        return Path(text.removesuffix("\n")) if text.endswith("\n") else None

    def close(self) -> None:
        """Give up what we hold; a server that inherited its part keeps it until it ends."""
        os.close(self._alive)
        os.close(self._lock)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
