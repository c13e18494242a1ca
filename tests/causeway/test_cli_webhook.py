"""`causeway webhook`, and the client's calls, against a real service, a real database and a real receiver."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import structlog

from causeway.api import ReplayRequest, WebhookCreate, WebhookPatch
from causeway.client import ControlClient
from causeway.errors import ApiError
from tests.causeway.test_cli_remote import Terminal, terminal
from tests.control.service import running, until
from tests.control.webhook_kit import LOCAL
from tests.control.webhook_receiver import Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

UNKNOWN = "wh_0000000000000000"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CAUSEWAY_URL", "CAUSEWAY_KEY"):
        monkeypatch.delenv(name, raising=False)
    logging = structlog.get_config()
    yield
    structlog.configure(**logging)


@asynccontextmanager
async def shell_and_receiver(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[tuple[Terminal, Receiver]]:
    async with (
        receiving() as receiver,
        terminal(database_url, monkeypatch, capsys, webhooks=LOCAL) as shell,
    ):
        yield shell, receiver


async def usage(shell: Terminal, *arguments: str) -> str:
    code, _, err = await shell.run("webhook", *arguments)
    assert code == 2, err
    assert err.count("\n") == 1, err
    return err


async def test_a_webhook_is_looked_after(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with shell_and_receiver(database_url, monkeypatch, capsys) as (shell, receiver):
        out = await shell.out(
            "webhook",
            "create",
            receiver.url,
            "--event",
            "conference.*",
            "--metadata",
            "team=blue",
            "--metadata",
            "size=3",
            "--type",
            "default",
            "--description",
            "the shop",
        )
        secret = out.strip()
        assert secret.startswith("whsec_")
        [listed] = await shell.read("webhook", "list")
        webhook = listed["id"]
        assert (listed["events"], listed["types"]) == (["conference.*"], ["default"])
        assert listed["metadata"] == {"team": "blue", "size": 3}
        drawn = await shell.out("webhook", "list") + await shell.out("webhook", "show", webhook)
        assert "the shop" in drawn
        assert secret not in drawn
        assert "taken with 200" in await shell.out("webhook", "test", webhook)
        receiver.answer = lambda _: 404
        assert "404" in await shell.error("webhook", "test", webhook)
        changed = await shell.read(
            "webhook",
            "set",
            webhook,
            "--all-conferences",
            "--all-events",
            "--description",
            "",
            "--address",
            f"{receiver.url}/2",
        )
        assert (changed["events"], changed["types"], changed["metadata"]) == ([], [], {})
        assert changed["url"].endswith("/hook/2")
        assert "is disabled" in await shell.out("webhook", "disable", webhook)
        assert "disabled (operator)" in await shell.out("webhook", "show", webhook)
        assert "is enabled" in await shell.out("webhook", "enable", webhook)
        fresh = (await shell.out("webhook", "rotate-secret", webhook, "--keep", "0")).strip()
        assert fresh.startswith("whsec_")
        assert fresh != secret
        assert "is deleted" in await shell.out("webhook", "delete", webhook)
        assert "404 webhook-unknown" in await shell.error("webhook", "show", webhook)


async def test_messages_are_listed_and_replayed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with shell_and_receiver(database_url, monkeypatch, capsys) as (shell, receiver):
        made = await shell.read("webhook", "create", receiver.url, "--event", "conference.created")
        webhook = made["id"]
        await shell.service.create("standup")

        async def listed() -> Any:
            return await shell.read("webhook", "deliveries", webhook, "--state", "delivered")

        [delivery] = await until(listed, bool)
        assert "standup" in await shell.out("webhook", "deliveries", webhook, "--conference", "standup")
        assert "is queued" in await shell.out("webhook", "replay", webhook, "--message", delivery["id"])

        async def number() -> int:
            return len(receiver.received)

        await until(number, lambda seen: seen == 2)
        [again] = await until(listed, bool)
        assert again["id"] == delivery["id"]
        assert await shell.read("webhook", "replay", webhook, "--hours", "1") == {"queued": 1}
        await until(number, lambda seen: seen == 3)
        nothing = await shell.out(
            "webhook",
            "replay",
            webhook,
            "--after",
            "2026-01-01T00:00:00Z",
            "--before",
            "2026-01-02T00:00:00Z",
            "--dead",
        )
        assert nothing == "0 messages are queued\n"


async def test_what_makes_no_sense_is_said_in_one_line(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with shell_and_receiver(database_url, monkeypatch, capsys) as (shell, _):
        assert "participant.jumped" in await usage(
            shell, "create", "https://example.com", "--event", "participant.jumped"
        )
        assert "KEY=VALUE" in await usage(shell, "create", "https://example.com", "--metadata", "blue")
        assert "nothing to change" in await usage(shell, "set", UNKNOWN)
        assert "--all-events" in await usage(shell, "set", UNKNOWN, "--all-events", "--event", "link.up")
        assert "--hours" in await usage(shell, "replay", UNKNOWN)
        assert "--message" in await usage(shell, "replay", UNKNOWN, "--message", "m", "--dead")
        assert "2026" in await usage(shell, "replay", UNKNOWN, "--after", "yesterday")
        assert "timezone" in await usage(shell, "replay", UNKNOWN, "--after", "2026-01-01T00:00:00")


async def test_every_call_of_the_client(database_url: str) -> None:
    async with receiving() as receiver, running(database_url, webhooks=LOCAL) as service:
        transport = httpx2.ASGITransport(app=service.control.app)
        async with ControlClient(
            "http://control.test", service.keys["operator"], transport=transport
        ) as control:
            made = await control.create_webhook(WebhookCreate(url=receiver.url))
            found = await control.get_webhook(made.id)
            assert (found.value.id, found.value.url) == (made.id, receiver.url)
            assert await control.list_webhooks() == [found.value]
            patch = WebhookPatch(description="ours")
            changed = await control.update_webhook(made.id, patch, if_match=found.tag)
            assert changed.description == "ours"
            with pytest.raises(ApiError, match="precondition-failed"):
                await control.update_webhook(made.id, patch, if_match=found.tag)
            assert (await control.test_webhook(made.id)).taken
            assert (await control.rotate_webhook_secret(made.id)).previous_secret_until is not None
            await service.create("a")
            await service.create("b")

            async def delivered() -> int:
                return len(await control.list_deliveries(made.id, state="delivered", limit=10))

            await until(delivered, lambda seen: seen == 2)
            every = [each async for each in control.each_delivery(made.id)]
            assert [each.conference for each in every] == ["b", "a"]
            assert (await control.get_delivery(made.id, every[0].id)).id == every[0].id
            assert (await control.replay_delivery(made.id, every[0].id)).id == every[0].id
            now = datetime.now(UTC)
            hour = ReplayRequest(after=now - timedelta(hours=1), before=now + timedelta(hours=1))
            assert await control.replay_deliveries(made.id, hour) in {1, 2}
            await control.delete_webhook(made.id)
            with pytest.raises(ApiError, match="webhook-unknown"):
                await control.get_webhook(made.id)
