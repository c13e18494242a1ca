"""What an operator asks of control about webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from causeway.api import (
    DeliveryList,
    DeliveryState,
    DeliveryView,
    ReplayAnswer,
    WebhookCreated,
    WebhookList,
    WebhookRotate,
    WebhookSecret,
    WebhookTest,
    WebhookView,
)
from causeway.client.connection import Connection, Tagged, headers_of, path_of, query_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.api import ReplayRequest, WebhookCreate, WebhookPatch

__all__ = ["WebhookCalls"]


class _DeliveryQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    state: DeliveryState | None = None
    conference: str | None = None
    limit: int | None = None
    cursor: str | None = None


class WebhookCalls(Connection):
    """Calls for operator keys."""

    async def list_webhooks(self) -> list[WebhookView]:
        """Return all webhooks, oldest first."""
        return (await self._ask("GET", "webhooks", WebhookList)).webhooks

    async def create_webhook(self, wish: WebhookCreate) -> WebhookCreated:
        """Have events sent to an address; the secret is in this answer and nowhere else."""
        return await self._ask("POST", "webhooks", WebhookCreated, body=wish)

    async def get_webhook(self, webhook: str) -> Tagged[WebhookView]:
        """Return a webhook, with the ETag for `update_webhook`."""
        return await self._ask_tagged("GET", path_of("webhooks", webhook), WebhookView)

    async def update_webhook(
        self, webhook: str, patch: WebhookPatch, *, if_match: str | None = None
    ) -> WebhookView:
        """Change what the patch names."""
        headers = headers_of(if_match=if_match)
        return await self._ask(
            "PATCH", path_of("webhooks", webhook), WebhookView, body=patch, headers=headers
        )

    async def delete_webhook(self, webhook: str) -> None:
        """Delete a webhook with everything that waits for it."""
        await self._call("DELETE", path_of("webhooks", webhook))

    async def rotate_webhook_secret(self, webhook: str, *, keep: int | None = None) -> WebhookSecret:
        """Replace the secret; for `keep` seconds (a day if None) messages are signed with both."""
        body = WebhookRotate() if keep is None else WebhookRotate(keep=keep)
        return await self._ask("POST", path_of("webhooks", webhook, "secret"), WebhookSecret, body=body)

    async def test_webhook(self, webhook: str) -> WebhookTest:
        """Have a test message sent now, and return what came of it."""
        return await self._ask("POST", path_of("webhooks", webhook, "test"), WebhookTest)

    async def each_delivery(
        self,
        webhook: str,
        *,
        state: DeliveryState | None = None,
        conference: str | None = None,
    ) -> AsyncIterator[DeliveryView]:
        """Go through the messages to a webhook, newest events first."""
        query = _DeliveryQuery(state=state, conference=conference)
        while True:
            path = f"{path_of('webhooks', webhook, 'deliveries')}{query_of(query)}"
            found = await self._ask("GET", path, DeliveryList)
            for delivery in found.deliveries:
                yield delivery
            if found.next is None:
                return
            query = structs.replace(query, cursor=found.next)

    async def list_deliveries(
        self,
        webhook: str,
        *,
        state: DeliveryState | None = None,
        conference: str | None = None,
        limit: int | None = None,
    ) -> list[DeliveryView]:
        """Return the messages of the newest events, up to `limit` (at most 1,000) of them."""
        query = _DeliveryQuery(state=state, conference=conference, limit=limit)
        path = f"{path_of('webhooks', webhook, 'deliveries')}{query_of(query)}"
        return (await self._ask("GET", path, DeliveryList)).deliveries

    async def get_delivery(self, webhook: str, message: str) -> DeliveryView:
        """Return what became of a message."""
        return await self._ask("GET", path_of("webhooks", webhook, "deliveries", message), DeliveryView)

    async def replay_delivery(self, webhook: str, message: str) -> DeliveryView:
        """Have a message delivered again."""
        path = path_of("webhooks", webhook, "deliveries", message, "replay")
        return await self._ask("POST", path, DeliveryView)

    async def replay_deliveries(self, webhook: str, request: ReplayRequest) -> int:
        """Have delivered again what happened in a time; return how many messages were queued."""
        path = path_of("webhooks", webhook, "replay")
        return (await self._ask("POST", path, ReplayAnswer, body=request)).queued
