"""Webhooks as operators look after them: made, filtered, changed, tried, listed, refused."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, update

from control.delivery.signing import verify
from control.registry.tables import webhooks
from control.webhook_settings import WebhookSettings
from tests.control.service import running
from tests.control.webhook_kit import (
    deliveries,
    hooked,
    local,
    made,
    received,
    refused,
    settled,
    shown,
)
from tests.control.webhook_receiver import receiving

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_events_and_conferences_are_filtered(database_url: str) -> None:
    async with (
        receiving() as some,
        hooked(
            database_url,
            events=["conference.ended", "conference.ending"],
            types=["default"],
            metadata={"team": "blue", "big": True},
        ) as (service, receiver, _),
    ):
        await made(service, url=some.url, events=["conference.*"], types=["webinar"])
        for name, metadata in (("a", {"team": "blue", "big": True}), ("b", {"team": "blue"}), ("c", {})):
            body = {"id": name, "metadata": metadata}
            assert (await service.application.post("/v1/conferences", json=body)).status_code == 201
            assert (await service.application.delete(f"/v1/conferences/{name}")).status_code in {202, 204}
        # The row of the conference is gone when its last event is written.
        ended = await received(receiver, 1, "conference.ended")
        assert ended[0]["data"]["conference"] == "a"
        assert {each["data"]["conference"] for each in receiver.taken()} == {"a"}
        assert some.received == []


async def test_both_secrets_sign_until_the_former_one_ends(database_url: str, engine: AsyncEngine) -> None:
    async with hooked(database_url) as (service, receiver, webhook):
        path = f"/v1/webhooks/{webhook['id']}"
        rotated = (await service.operator.post(f"{path}/secret", json={"keep": 3600})).json()
        assert rotated["secret"] != webhook["secret"]
        assert (await shown(service, webhook["id"]))["previous_secret_until"] is not None
        await service.create("a")
        await received(receiver, 1)
        got = receiver.received[0]
        now = datetime.now(UTC).timestamp()
        for secret in (webhook["secret"], rotated["secret"]):
            assert verify(got.headers, got.body, secret, now=now, tolerance=300)
        async with engine.begin() as connection:
            await connection.execute(update(webhooks).values(previous_until=func.now()))
        assert (await shown(service, webhook["id"]))["previous_secret_until"] is None
        await service.create("b")
        await received(receiver, 2)
        got = receiver.received[1]
        assert verify(got.headers, got.body, rotated["secret"], now=now, tolerance=300)
        assert not verify(got.headers, got.body, webhook["secret"], now=now, tolerance=300)
        at_once = (await service.operator.post(f"{path}/secret", json={"keep": 0})).json()
        assert at_once["previous_secret_until"] is None
        stored = await service.operator.get("/v1/audit", params={"subject": f"webhook:{webhook['id']}"})
        assert "whsec_" not in stored.text


async def test_a_test_message_tells_what_came_of_it(database_url: str) -> None:
    async with hooked(database_url, events=["link.up"]) as (service, receiver, webhook):
        path = f"/v1/webhooks/{webhook['id']}/test"
        told = (await service.operator.post(path)).json()
        assert (told["taken"], told["status"], told["error"]) == (True, 200, None)
        (got,) = receiver.received
        assert got.id == told["message"]
        assert got.message["type"] == "webhook.test"
        assert got.message["data"] == {"webhook": webhook["id"]}
        assert verify(
            got.headers, got.body, webhook["secret"], now=datetime.now(UTC).timestamp(), tolerance=300
        )
        receiver.answer = lambda _: 302
        told = (await service.operator.post(path)).json()
        assert (told["taken"], told["status"]) == (False, 302)
        assert await deliveries(service, webhook["id"]) == []


async def test_addresses_that_are_not_public_are_refused(database_url: str) -> None:
    async with (
        receiving() as receiver,
        running(database_url, webhooks=WebhookSettings(allow_http=True, poll_interval=0.1)) as service,
    ):
        for url in (
            receiver.url,
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://u:p@example.com/",
        ):
            refused(await service.operator.post("/v1/webhooks", json={"url": url}), 422, "invalid-request")
        # A name is only known when it is looked up.
        port = receiver.url.rpartition(":")[2]
        webhook = await made(service, url=f"http://localhost:{port}")
        told = (await service.operator.post(f"/v1/webhooks/{webhook['id']}/test")).json()
        assert told["taken"] is False
        assert "no public address" in told["error"]
        assert receiver.received == []
        answer = await service.operator.patch(
            f"/v1/webhooks/{webhook['id']}", json={"url": "http://10.0.0.1/"}
        )
        refused(answer, 422, "invalid-request")


async def test_plain_http_is_refused_unless_allowed(database_url: str) -> None:
    async with running(database_url) as service:
        answer = await service.operator.post("/v1/webhooks", json={"url": "http://example.com/"})
        refused(answer, 422, "invalid-request")
        webhook = await made(service, url="https://example.com/hook", description="ours")
        assert (webhook["enabled"], webhook["description"]) == (True, "ours")


async def test_webhooks_are_changed_listed_and_deleted(database_url: str, engine: AsyncEngine) -> None:
    async with hooked(database_url, settings=local(max_webhooks=2)) as (service, receiver, webhook):
        path = f"/v1/webhooks/{webhook['id']}"
        tag = (await service.operator.get(path)).headers["etag"]
        body = {"events": ["participant.*"], "description": "for the shop", "metadata": {"a": 1}}
        changed = await service.operator.patch(path, json=body, headers={"If-Match": tag})
        assert {name: changed.json()[name] for name in body} == body
        stale = await service.operator.patch(path, json={"events": []}, headers={"If-Match": tag})
        refused(stale, 412, "precondition-failed")
        off = (await service.operator.patch(path, json={"enabled": False})).json()
        assert (off["enabled"], off["disabled_reason"]) == (False, "operator")
        second = await made(service, url=receiver.url, enabled=False)
        assert second["disabled_reason"] == "operator"
        refused(await service.operator.post("/v1/webhooks", json={"url": receiver.url}), 409, "webhook-limit")
        listed = (await service.operator.get("/v1/webhooks")).json()["webhooks"]
        assert [each["id"] for each in listed] == [webhook["id"], second["id"]]
        assert (await service.operator.delete(path)).status_code == 204
        refused(await service.operator.delete(path), 404, "webhook-unknown")
        refused(await service.operator.get(path), 404, "webhook-unknown")
        refused(await service.operator.patch(path, json={"enabled": True}), 404, "webhook-unknown")
        for tail in ("/deliveries", "/deliveries/msg_" + "0" * 32):
            refused(await service.operator.get(path + tail), 404, "webhook-unknown")
        missing = f"/v1/webhooks/{second['id']}/deliveries/msg_{'0' * 32}"
        refused(await service.operator.get(missing), 404, "delivery-unknown")
        refused(await service.operator.post(f"{missing}/replay"), 404, "delivery-unknown")
        refused(await service.application.get("/v1/webhooks"), 403, "forbidden")


async def test_deliveries_are_listed_page_by_page(database_url: str) -> None:
    async with hooked(database_url) as (service, _, webhook):
        for number in range(5):
            await service.create(f"c{number}")
        await settled(service, webhook["id"])
        path = f"/v1/webhooks/{webhook['id']}/deliveries"
        seen: list[str] = []
        cursor = None
        while True:
            query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
            page = (await service.operator.get(path, params=query)).json()
            seen += [each["conference"] for each in page["deliveries"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == ["c4", "c3", "c2", "c1", "c0"]
        only = await deliveries(service, webhook["id"], conference="c3", state="delivered")
        assert [each["conference"] for each in only] == ["c3"]
        forged = base64.urlsafe_b64encode(b'[1,0,"x"]').rstrip(b"=").decode()
        for cursor in ("nonsense", forged):
            refused(await service.operator.get(path, params={"cursor": cursor}), 422, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://example.com/"},
        {"url": "https://example.com/", "events": ["participant.jumped"]},
        {"url": "https://example.com/#part"},
        {"url": "https://example.com/", "metadata": {"a": {"b": 1}}},
        {"url": "https://exa mple.com/"},
        {"url": "https://[::1/"},
        {"url": "https://example.com:99999/"},
    ],
)
async def test_wishes_that_make_no_sense_are_refused(database_url: str, body: dict[str, Any]) -> None:
    async with running(database_url, background=False) as service:
        refused(await service.operator.post("/v1/webhooks", json=body), 422, "invalid-request")


async def test_ranges_that_make_no_sense_are_refused(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        webhook = await made(service, url="https://example.com/")
        path = f"/v1/webhooks/{webhook['id']}/replay"
        for after, before in (
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00", "2026-01-02T00:00:00"),
            ("0001-01-01T00:00:00+23:00", "2026-01-02T00:00:00Z"),
        ):
            answer = await service.operator.post(path, json={"after": after, "before": before})
            refused(answer, 422, "invalid-request")
