"""`causeway agent`, and the client's calls, against a real service and a real database."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import structlog

from causeway.api.agents import (
    AgentAddress,
    AgentAddresses,
    AgentCapacity,
    AgentRegistration,
    ProtocolRange,
)
from causeway.client import ControlClient
from causeway.errors import ApiError
from tests.causeway.test_cli_remote import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRATION = AgentRegistration(
    cluster="eu-1",
    region="eu",
    kinds=["event"],
    addresses=AgentAddresses(event=AgentAddress(host="192.0.2.7", port=7700, fingerprint="a" * 64)),
    capacity=AgentCapacity(conferences=12),
    version="1.0",
    protocol=ProtocolRange(min=1, max=1),
    instance="i1",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CAUSEWAY_URL", "CAUSEWAY_KEY"):
        monkeypatch.delenv(name, raising=False)
    logging = structlog.get_config()
    yield
    structlog.configure(**logging)


async def test_an_agent_is_looked_after(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with terminal(database_url, monkeypatch, capsys) as shell:
        async with ControlClient(os.environ["CAUSEWAY_URL"], key=shell.service.keys["operator"]) as control:
            lease = await control.register_agent("bridge-1", REGISTRATION)
            assert (lease.epoch, lease.channel) == (1, "/v1/agents/bridge-1/channel")
            assert [each.id for each in await control.list_agents(cluster="eu-1")] == ["bridge-1"]
            assert await control.list_agents(cluster="us-1") == []
        assert "bridge-1" in await shell.out("agent", "list")
        listed = json.loads(await shell.out("agent", "list", "--cluster", "eu-1", "--json"))
        assert [each["id"] for each in listed] == ["bridge-1"]
        shown = await shell.out("agent", "show", "bridge-1")
        assert "192.0.2.7:7700" in shown
        assert "0 of 12" in shown
        assert "draining" in await shell.out("agent", "drain", "bridge-1")
        assert "takes conferences again" in await shell.out("agent", "undrain", "bridge-1")
        code, _, err = await shell.run("agent", "show", "nobody")
        assert (code, err.count("\n")) == (1, 1)
        assert "agent-unknown" in err
        async with ControlClient(os.environ["CAUSEWAY_URL"], key=shell.service.keys["operator"]) as control:
            with pytest.raises(ApiError) as caught:
                await control.unregister_agent("bridge-1", epoch=9)
            assert caught.value.type == "stale-epoch"
            await control.unregister_agent("bridge-1", epoch=1)
            assert (await control.get_agent("bridge-1")).state == "unregistered"
