from __future__ import annotations

import base64
import os
import socket
from typing import TYPE_CHECKING, Any

from causeway.client import ControlClient
from control.replica_settings import ReplicaSettings
from tests.causeway.test_cli_remote import terminal
from tests.control.service import running, until

if TYPE_CHECKING:
    import pytest


async def test_replicas_and_their_duties_are_listed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one_key = base64.b64encode(bytes(32)).decode()
    named = ReplicaSettings(name="one")
    async with terminal(database_url, monkeypatch, capsys, replica=named, master_key=one_key) as shell:

        async def listed() -> Any:
            return await shell.read("replica", "list")

        [one] = await until(listed, lambda seen: len(seen) == 1 and len(seen[0]["duties"]) == 7)
        assert (one["name"], one["state"], one["conferences"]) == ("one", "alive", 0)
        async with running(database_url, master_key=one_key):
            await until(listed, lambda seen: [len(each["duties"]) for each in seen] in ([3, 4], [4, 3]))
        drawn = await shell.out("replica", "list")
        assert "stopped" in drawn
        assert socket.gethostname() in drawn
        assert (await shell.service.application.get("/v1/replicas")).status_code == 403


async def test_the_client_lists_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:

        async def listed() -> Any:
            async with ControlClient(os.environ["CAUSEWAY_URL"], shell.service.keys["operator"]) as client:
                return await client.list_replicas()

        [one] = await until(listed, lambda seen: len(seen) == 1)
        assert one.state == "alive"
