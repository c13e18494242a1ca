from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from causeway import cli as command_line
from causeway.keys import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@asynccontextmanager
async def control(*options: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "causeway",
        "control",
        *options,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines_until_listening(process: asyncio.subprocess.Process) -> list[str]:
    lines: list[str] = []
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while not lines or not lines[-1].startswith("listening on "):
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode().rstrip())
    return lines


async def stopped(process: asyncio.subprocess.Process, number: int) -> tuple[str, str]:
    process.send_signal(number)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def test_the_process_from_first_start_to_second(state_folder: Path) -> None:
    options = ["--port", "0", "--state", str(state_folder / "state")]
    async with control(*options) as process:
        lines = await lines_until_listening(process)
        keys = dict(
            re.findall(r"^  (\w+) +(cw_\1_[0-9a-f]{12}_[0-9a-f]{64})$", "\n".join(lines), re.MULTILINE)
        )
        assert set(keys) == {"enrolment", "application", "operator"}
        url = lines[-1].removeprefix("listening on ")
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            assert (await client.get("/readyz")).status_code == 200
            headers = {"Authorization": f"Bearer {keys['application']}"}
            assert (
                await client.post("/v1/conferences", json={"id": "c"}, headers=headers)
            ).status_code == 201
            assert (await client.get("/v1/clusters", headers=headers)).status_code == 403
        out, err = await stopped(process, signal.SIGTERM)
        assert out == ""
        for key in keys.values():
            assert key.rpartition("_")[2] not in err
        assert "Traceback" not in err
    async with control(*options) as process:
        [line] = await lines_until_listening(process)
        async with httpx2.AsyncClient(base_url=line.removeprefix("listening on "), timeout=20) as client:
            listed = (await client.get("/v1/conferences", headers=headers)).json()
            assert [conference["id"] for conference in listed["conferences"]] == ["c"]
        await stopped(process, signal.SIGINT)


async def test_configured_keys_work_and_are_not_shown(state_folder: Path, database_url: str) -> None:
    key = new_key("operator")
    environment = {"CAUSEWAY_CONTROL__KEYS__OPERATOR": key, "CAUSEWAY_DATABASE__URL": database_url}
    async with control("--port", "0", "--state", str(state_folder), **environment) as process:
        [line] = await lines_until_listening(process)
        async with httpx2.AsyncClient(base_url=line.removeprefix("listening on "), timeout=20) as client:
            answer = await client.get("/v1/clusters", headers={"Authorization": f"Bearer {key}"})
            assert answer.json() == {"clusters": []}
        _, err = await stopped(process, signal.SIGTERM)
        assert key not in err


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["--port", "70000"], {}, "--port"),
        (["--host", "no such host"], {}, "control.host"),
        ([], {"CAUSEWAY_CONTROL__KEYS__OPERATOR": "x"}, "control.keys.operator"),
        ([], {"CAUSEWAY_CONTROL__MASTER_KEY": "x"}, "control.master_key"),
        ([], {"CAUSEWAY_CONTROL__LEASE__TTL": "soon"}, "ttl"),
        ([], {"CAUSEWAY_CONTROL__NONSENSE": "1"}, "nonsense"),
        ([], {"CAUSEWAY_DATABASE__URL": "mysql://x"}, "database.url"),
        (["--config", "/nonexistent.toml"], {}, "/nonexistent.toml"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(
    state_folder: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    options: list[str],
    environment: dict[str, str],
    expected: str,
) -> None:
    """In this process, which has imported everything already."""
    given = {"CAUSEWAY_DATABASE__URL": database_url, "CAUSEWAY_CONTROL__PORT": "0"} | environment
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert command_line.run(["control", "--state", str(state_folder), *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    [line] = [text for text in err.splitlines() if not text.startswith("{")]
    assert line.startswith("causeway: ")
    assert expected in line
