"""`causeway edge janus` as a process."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from tests.edge.janus_server import janus_server

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "causeway", "edge", "janus", "--config")


async def run(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def test_it_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    config = tmp_path / "janus.toml"
    with janus_server() as server:
        config.write_text(f'[lab]\ncluster = "janus-1"\n[edge.janus]\nurl = "{server.url}"\n')
        process = await run(config)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            async for line in process.stdout:
                if (
                    b"janus.unreachable" in line and b"403" in line
                ):  # it has reached the server, and lacks a secret
                    break
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.stdout.read()
            assert await process.wait() == 0


async def test_settings_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    config = tmp_path / "janus.toml"
    config.write_text('[lab]\nhost = "0.0.0.0"\n')
    process = await run(config)
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 2
    (line,) = [one for one in output.decode().splitlines() if one.startswith("causeway:")]
    assert "edge.janus.rtp_host" in line
