"""What tests of webhooks share: a service with one, its receiver, and how both are looked at."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, update

from control.registry.tables import webhook_deliveries
from control.webhook_settings import WebhookSettings
from tests.control.service import Service, running, until
from tests.control.test_http_edge import problem_of
from tests.control.webhook_receiver import Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2
    from sqlalchemy.ext.asyncio import AsyncEngine

LOCAL = WebhookSettings(
    allow_networks=("127.0.0.0/8",),
    allow_http=True,
    poll_interval=0.1,
    retry_base=0.02,
    retry_cap=0.05,
    pause_base=0.02,
    pause_cap=0.1,
    timeout=5.0,
    upkeep_interval=0.05,
)


def local(**changes: Any) -> WebhookSettings:
    fields = {name: getattr(LOCAL, name) for name in WebhookSettings.__struct_fields__}
    return WebhookSettings(**(fields | changes))


@asynccontextmanager
async def hooked(
    database_url: str, *, settings: WebhookSettings = LOCAL, **wish: Any
) -> AsyncIterator[tuple[Service, Receiver, dict[str, Any]]]:
    async with receiving() as receiver, running(database_url, webhooks=settings) as service:
        yield service, receiver, await made(service, url=receiver.url, **wish)


async def made(service: Service, **wish: Any) -> dict[str, Any]:
    answer = await service.operator.post("/v1/webhooks", json=wish)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    created: dict[str, Any] = answer.json()
    return created


async def shown(service: Service, webhook: str) -> dict[str, Any]:
    answer = await service.operator.get(f"/v1/webhooks/{webhook}")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def deliveries(service: Service, webhook: str, **query: Any) -> list[dict[str, Any]]:
    answer = await service.operator.get(f"/v1/webhooks/{webhook}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found


async def received(receiver: Receiver, number: int, kind: str | None = None) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]]:
        return receiver.taken(kind)

    found: list[dict[str, Any]] = await until(look, lambda seen: len(seen) >= number)
    assert len(found) == number
    return found


async def settled(service: Service, webhook: str) -> dict[str, Any]:
    """Wait until nothing waits for the webhook any more."""
    view: dict[str, Any] = await until(lambda: shown(service, webhook), lambda seen: seen["waiting"] == 0)
    return view


def refused(answer: httpx2.Response, status: int, kind: str) -> None:
    assert (answer.status_code, problem_of(answer).type) == (status, kind), answer.text


async def grow_old(engine: AsyncEngine) -> None:
    """Let what waits have waited for so long that it is given up."""
    async with engine.begin() as connection:
        await connection.execute(
            update(webhook_deliveries)
            .where(webhook_deliveries.c.state == "pending")
            .values(queued_at=func.now() - timedelta(days=4))
        )


async def change(service: Service, conference: str, number: int) -> None:
    answer = await service.application.patch(
        f"/v1/conferences/{conference}", json={"metadata": {"n": number}}
    )
    assert answer.status_code == 200, answer.text


async def counted(receiver: Receiver) -> int:
    return len(receiver.received)


async def fetched(service: Service, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await service.operator.get(path)).json()
    return found


async def under_way(receiver: Receiver) -> int:
    return receiver.under_way
