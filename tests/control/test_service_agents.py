from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from sqlalchemy import event

from causeway.channel import (
    Desired,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    encode,
)
from control.agent_settings import AgentSettings
from control.agents.service import Agents
from control.bell import Bell
from control.registry.store import Store
from control.security.vault import Vault
from control.settings import HttpSettings
from tests.control.agents import Agent, listening
from tests.control.service import running, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.control.service import Service

QUICK = AgentSettings(ttl=30.0, sweep_interval=0.05, waiting_interval=0.1, poll_interval=30.0)


def agent(service: Service, at: str, name: str, cluster: str, **fields: Any) -> Agent:
    return Agent(id=name, cluster=cluster, at=at, key=service.keys["enrolment"], **fields)


async def shown(service: Service, name: str) -> dict[str, Any]:
    answer = await service.operator.get(f"/v1/agents/{name}")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


# --- registration -----------------------------------------------------------------------------


async def test_a_registration_is_answered_with_a_lease_and_shown(database_url: str) -> None:
    async with running(database_url, background=False) as service, listening(service) as at:
        eu = agent(service, at, "eu-a", "eu-1")
        lease = await eu.register(something_newer=1)
        assert lease == {
            "agent": "eu-a",
            "epoch": 1,
            "ttl": 6.0,
            "heartbeat_interval": 2.0,
            "protocol": 1,
            "channel": "/v1/agents/eu-a/channel",
        }
        view = await shown(service, "eu-a")
        assert view["state"] == "online"
        assert view["cluster"] == "eu-1"  # which need not be there yet
        assert view["connected"] is False
        listed = (await service.operator.get("/v1/agents?cluster=eu-1")).json()["agents"]
        assert [each["id"] for each in listed] == ["eu-a"]
        assert (await service.operator.get("/v1/agents?cluster=us-1")).json()["agents"] == []
        audit = (await service.operator.get("/v1/audit?subject=agent:eu-a")).json()["entries"]
        assert [each["action"] for each in audit] == ["registered"]


async def test_epochs_tell_starts_apart(database_url: str) -> None:
    async with running(database_url, background=False) as service, listening(service) as at:
        eu = agent(service, at, "eu-a", "eu-1")
        assert (await eu.register())["epoch"] == 1
        assert (await eu.register())["epoch"] == 1
        eu.instance = "i2"
        assert (await eu.register())["epoch"] == 2
        enrolment = service.enrolment
        stale = await enrolment.delete("/v1/agents/eu-a", headers={"Causeway-Epoch": "1"})
        assert (stale.status_code, stale.json()["type"]) == (409, "stale-epoch")
        assert (await enrolment.delete("/v1/agents/eu-a", headers={"Causeway-Epoch": "2"})).status_code == 204
        assert (await enrolment.delete("/v1/agents/eu-a")).status_code == 204
        assert (await shown(service, "eu-a"))["state"] == "unregistered"
        assert (await eu.register())["epoch"] == 3


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"protocol": {"min": 2, "max": 3}}, 409, "agent-incompatible"),
        ({"protocol": {"min": 3, "max": 2}}, 422, "invalid-request"),
        ({"addresses": {}}, 422, "invalid-request"),
        ({"kinds": []}, 422, "invalid-request"),
        ({"capacity": {"conferences": -1}}, 422, "invalid-request"),
        ({"version": "\x00"}, 422, "invalid-request"),
    ],
)
async def test_wrong_registrations_are_refused(
    database_url: str, changes: dict[str, Any], status: int, kind: str
) -> None:
    async with running(database_url, background=False) as service, listening(service) as at:
        answer = await agent(service, at, "eu-a", "eu-1").put(**changes)
        assert (answer.status_code, answer.json()["type"]) == (status, kind)
        assert (await service.operator.get("/v1/agents/eu-a")).json()["type"] == "agent-unknown"


async def test_a_newer_agent_registers_here(database_url: str) -> None:
    async with running(database_url, background=False) as service, listening(service) as at:
        newer = agent(service, at, "eu-a", "eu-1", kinds=("event", "hologram"))
        lease = await newer.register(protocol={"min": 1, "max": 7}, features=["x"])
        assert lease["protocol"] == 1
        assert (await shown(service, "eu-a"))["kinds"] == ["event", "hologram"]


# --- opening the channel ----------------------------------------------------------------------


async def refused(at: str, name: str = "eu-a", **options: Any) -> tuple[int, str]:
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with websockets.connect(f"ws://{at}/v1/agents/{name}/channel", **options):
            pass
    response = caught.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(bytes(response.body or b""))["type"]


async def test_the_gate_stands_before_sockets_too(database_url: str) -> None:
    async with (
        running(database_url, background=False, agents=AgentSettings(max_channels=1)) as service,
        listening(service) as at,
    ):
        keys = {kind: {"Authorization": f"Bearer {key}"} for kind, key in service.keys.items()}
        speaking: Any = ["causeway.agent.v1"]
        assert await refused(at, subprotocols=speaking) == (401, "unauthenticated")
        assert await refused(at, subprotocols=speaking, additional_headers=keys["application"]) == (
            403,
            "forbidden",
        )
        ours: Any = {"additional_headers": keys["enrolment"]}
        assert await refused(at, **ours) == (409, "agent-incompatible")
        newer: Any = ["causeway.agent.v9"]
        assert await refused(at, subprotocols=newer, **ours) == (409, "agent-incompatible")
        assert await refused(at, "-", subprotocols=speaking, **ours) == (422, "invalid-request")
        assert await refused(at, "eu-a/x", subprotocols=speaking, **ours) == (404, "not-found")
        plain = await service.enrolment.get("/v1/agents/eu-a/channel")
        assert (plain.status_code, plain.json()["type"]) == (426, "upgrade-required")
        async with agent(service, at, "eu-a", "eu-1").connected() as channel:
            await channel.hear(Desired)
            assert channel.socket.subprotocol == "causeway.agent.v1"
            assert await refused(at, subprotocols=speaking, **ours) == (503, "overloaded")


async def test_only_the_holder_of_the_registration_is_listened_to(database_url: str) -> None:
    async with running(database_url, background=False, agents=QUICK) as service, listening(service) as at:
        eu = agent(service, at, "eu-a", "eu-1")
        async with eu.channel() as channel:
            await channel.say(Hello(epoch=1))
            assert await channel.end() == Goodbye(reason="register")
        await eu.register()
        async with eu.channel() as channel:
            await channel.say(Hello(epoch=7))
            assert await channel.end() == Goodbye(reason="register")
        async with eu.connected() as first:
            await first.hear(Desired)
            async with eu.connected() as second:
                await second.hear(Desired)
                await first.say(Heartbeat())
                assert await first.end() == Goodbye(reason="replaced")
                await second.say(Heartbeat())
                await second.hear(LeaseRenewed)
                await service.enrolment.delete("/v1/agents/eu-a")
                await second.say(Heartbeat())
                assert await second.end() == Goodbye(reason="register")


@pytest.mark.parametrize(
    "frame",
    ["", "[]", '{"type":"heartbeat"', b"\xff\x00", '{"type":"ack"}', '{"type":"hello","epoch":1}'],
)
async def test_what_is_no_message_ends_the_channel(database_url: str, frame: str | bytes) -> None:
    async with running(database_url, background=False, agents=QUICK) as service, listening(service) as at:
        async with agent(service, at, "eu-a", "eu-1").connected() as channel:
            await channel.hear(Desired)
            await channel.say_text(frame)
            assert await channel.end() == Goodbye(reason="protocol")
        assert (await shown(service, "eu-a"))["state"] == "online"


async def test_messages_from_the_future_are_passed_over(database_url: str) -> None:
    async with running(database_url, background=False, agents=QUICK) as service, listening(service) as at:
        async with agent(service, at, "eu-a", "eu-1").connected() as channel:
            await channel.say_text('{"type":"dream","of":["sheep"]}')
            await channel.say_text('{"type":"heartbeat","mood":"good","load":{"dreams":3,"links":2}}')
            await channel.hear(LeaseRenewed)
        assert (await shown(service, "eu-a"))["load"]["links"] == 2


async def test_an_agent_that_says_nothing_or_too_much_is_let_go(database_url: str) -> None:
    settings = AgentSettings(hello_timeout=0.2)
    small = HttpSettings(max_socket_bytes=2048)
    async with (
        running(database_url, background=False, agents=settings) as service,
        listening(service, small) as at,
    ):
        eu = agent(service, at, "eu-a", "eu-1")
        await eu.register()
        async with eu.channel() as channel:
            assert await channel.end() == Goodbye(reason="protocol")
        async with eu.connected() as channel:
            await channel.hear(Desired)
            await channel.say_text(" " * 4096)
            assert await channel.end() is None
            assert channel.socket.close_code == 1009


class Stuck:
    """The WebSocket of an agent that says hello and then never reads."""

    def __init__(self, epoch: int) -> None:
        self._said = [encode(Hello(epoch=epoch))]
        self.never = asyncio.Event()

    async def receive(self) -> str | None:
        if self._said:
            return self._said.pop()
        await self.never.wait()
        return None

    async def send(self, _text: str) -> None:
        await self.never.wait()


async def serve(agents: Agents, socket: Stuck) -> None:
    async def yes() -> bool:
        return True

    with agents.room("eu-a") as waker:
        await agents.serve("eu-a", socket, waker, allowed=yes)


async def test_an_agent_that_does_not_read_is_let_go(database_url: str) -> None:
    settings = AgentSettings(ttl=30.0, send_timeout=0.1)
    async with running(database_url, background=False) as service, listening(service) as at:
        await agent(service, at, "eu-a", "eu-1").register()
        agents = Agents(Store(service.engine), Vault(bytes(32)), Bell(), settings)
        async with asyncio.timeout(20):
            await serve(agents, Stuck(epoch=1))
        view = await shown(service, "eu-a")
        assert (view["state"], view["connected"], view["desired_version"]) == ("online", False, 1)
        # One that is cancelled is closed, too.
        patient = Agents(Store(service.engine), Vault(bytes(32)), Bell(), AgentSettings())
        task = asyncio.create_task(serve(patient, Stuck(epoch=1)))
        await until(lambda: shown(service, "eu-a"), lambda view: view["connected"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await shown(service, "eu-a"))["connected"] is False


async def test_a_database_that_is_away_lets_agents_come_back(database_url: str) -> None:
    async with running(database_url, background=False) as service, listening(service) as at:
        eu = agent(service, at, "eu-a", "eu-1")
        async with eu.connected() as channel:
            await channel.hear(Desired)
            with mute(service):
                await channel.say(Heartbeat())
                assert await channel.end() == Goodbye(reason="restarting", retry_after=1.0)
        async with eu.connected() as channel:
            await channel.hear(Desired)
            assert eu.epoch == 1


@contextmanager
def mute(service: Service) -> Iterator[None]:
    """Have the database out of reach."""

    def refuse(*_arguments: Any) -> None:
        raise OSError("no route to the database")

    event.listen(service.engine.sync_engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(service.engine.sync_engine, "before_cursor_execute", refuse)
