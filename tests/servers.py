"""Servers that tests start as processes: waiting until one takes connections."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

__all__ = ["wait_until_listening"]


def wait_until_listening(process: subprocess.Popen[bytes], port: int, *, seconds: float, log: Path) -> None:
    """Wait until `port` of this machine is open; otherwise raise RuntimeError with the end of the log."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            name = " ".join(map(str, process.args)) if isinstance(process.args, list) else str(process.args)
            raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)
