"""A real Janus server for the tests that ask for one, on loopback: a folder, ports and a leash of its own.

WebRTC goes over an address of the machine that is not loopback, as libnice and aioice leave loopback out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from causeway.leash import leashed
from tests.servers import wait_until_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ADMIN_KEY", "API_SECRET", "JanusServer", "janus_server"]

API_SECRET: Final = "an API secret"
ADMIN_KEY: Final = "an admin key"
_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 10.0
_PLUGINS: Final = Path("/usr/lib/x86_64-linux-gnu/janus")


class JanusServer:
    """One server. `start` it from the main thread: its leash ends with the thread."""

    def __init__(self, folder: Path, *, string_ids: bool = False) -> None:
        self.folder = folder
        self.string_ids = string_ids
        self._program = shutil.which("janus") or pytest.fail(
            "janus is missing: install the Janus server (Debian: apt-get install janus)", False
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._write_files(string_ids=string_ids)

    @property
    def url(self) -> str:
        """Return where its WebSocket API is."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                leashed(
                    [self._program, "-F", str(self.folder), "-C", str(self.folder / "janus.jcfg")],
                    signal="KILL",
                    user="nobody" if os.geteuid() == 0 else None,
                ),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until_listening(self._process, self.port, seconds=_START_TIMEOUT, log=self.folder / "log.txt")

    def kill(self) -> None:
        """End it at once; everything that it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT)
            self._process = None

    async def restart(self) -> None:
        """Kill it and start it again, on the same port."""
        self.kill()
        await asyncio.sleep(0)
        self.start()

    def _write_files(self, *, string_ids: bool) -> None:
        folders = "\n".join(f'  {kind}_folder = "{_PLUGINS / kind}"' for kind in ("plugins", "transports"))
        files = {
            "janus.jcfg": f"""\
general: {{
  configs_folder = "{self.folder}"
{folders}
  events_folder = "{self.folder}/none"
  loggers_folder = "{self.folder}/none"
  debug_level = 4
  debug_colors = false
  api_secret = "{API_SECRET}"
}}
nat: {{ ice_lite = true }}
plugins: {{ disable = "{_all_but("plugins", "libjanus_videoroom.so")}" }}
transports: {{ disable = "{_all_but("transports", "libjanus_websockets.so")}" }}
""",
            "janus.transport.websockets.jcfg": f"""\
general: {{
  json = "compact"
  ws = true
  ws_ip = "127.0.0.1"
  ws_port = {self.port}
}}
""",
            "janus.plugin.videoroom.jcfg": f"""\
general: {{
  admin_key = "{ADMIN_KEY}"
  string_ids = {"true" if string_ids else "false"}
}}
""",
        }
        (self.folder / "none").mkdir()
        for name, text in files.items():
            (self.folder / name).write_text(text)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "nobody")


def _all_but(kind: str, wanted: str) -> str:
    there = {path.name for path in (_PLUGINS / kind).glob("*.so")}
    return ",".join(sorted(there - {wanted}))


@contextlib.contextmanager
def janus_server(*, string_ids: bool = False) -> Iterator[JanusServer]:
    """Lend a running server."""
    folder = Path(tempfile.mkdtemp(prefix="causeway-janus-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        server = JanusServer(folder, string_ids=string_ids)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)
