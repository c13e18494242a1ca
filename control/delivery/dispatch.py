"""Delivers what is due to webhooks. Every replica does; lanes are claimed in the registry.

A lane's messages go one after the other, and no later one before an earlier one is taken or given up. Each is
sent at least once: again, when its sender dies before it could write down what came of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from control.delivery.attempts import outcome_of
from control.errors import DatabaseUnavailableError
from control.registry import webhook_deliveries, webhook_queue, webhook_tries
from control.registry.webhook_deliveries import message_id

if TYPE_CHECKING:
    import uuid

    from control.delivery.attempts import Attempt
    from control.delivery.webhooks import Webhooks
    from control.registry.store import Store
    from control.registry.webhook_queue import Held
    from control.registry.webhook_tries import Loaded, Message, Settled
    from control.webhook_settings import WebhookSettings

__all__ = ["Dispatcher", "keep_up"]

_log = structlog.get_logger(__name__)

_STATEMENTS_AT_ONCE: Final = 4
"""So that, however much is to be delivered, the pool has connections left for everything else."""
_MOST_IN_A_ROW: Final = 16
"""Messages of one lane before the others of its webhook get a turn."""


class Dispatcher:
    """Delivers while `run` runs. `wake` says that something may be due; it also looks now and then."""

    def __init__(
        self, store: Store, service: Webhooks, settings: WebhookSettings, *, replica: uuid.UUID | None = None
    ) -> None:
        self._store = store
        self._service = service
        self._settings = settings
        self._replica = replica
        self._free = settings.max_at_once
        self._woken = asyncio.Event()
        self._database = asyncio.Semaphore(_STATEMENTS_AT_ONCE)

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def heard(self, _payload: str) -> None:
        """Take a notice that something was queued."""
        self.wake()

    async def run(self) -> None:
        """Deliver what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                for held in await self._claim():
                    self._free -= 1
                    group.create_task(self._guarded(held))
                # With no slot free a message under way ends first; each has its timeouts.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_interval if self._free else None):
                        await self._woken.wait()

    async def _claim(self) -> list[Held]:
        try:
            return await self._store.write(
                webhook_queue.claim,
                limit=self._free,
                per_webhook=self._settings.max_per_webhook,
                ttl=self._settings.claim_ttl,
                replica=self._replica,
            )
        except DatabaseUnavailableError as error:
            _log.warning("webhook.database_unavailable", error=error.detail)
            return []

    async def _guarded(self, held: Held) -> None:
        try:
            await self._work(held)
        except DatabaseUnavailableError as error:
            # The claim runs out, and the message is sent again.
            _log.warning("webhook.database_unavailable", webhook=held.webhook, error=error.detail)
        except Exception:  # noqa: BLE001 - one webhook's trouble must not end the others' deliveries; logged
            _log.exception("webhook.defect", webhook=held.webhook)
        finally:
            self._free += 1
            self._woken.set()

    async def _work(self, held: Held) -> None:
        """Send the lane's messages until one fails, none is left, or others shall have a turn."""
        for turn in range(1, _MOST_IN_A_ROW + 1):
            async with self._database:
                loaded = await self._store.read(webhook_tries.load, held)
            if loaded is None:
                return
            if isinstance(loaded, int):
                async with self._database:
                    await self._store.write(webhook_tries.finish, held, loaded)
                return
            attempt = await self._service.send(loaded.target, loaded.message)
            async with self._database:
                if not await self._settle(held, loaded, attempt, go_on=turn < _MOST_IN_A_ROW):
                    return

    async def _settle(self, held: Held, loaded: Loaded, attempt: Attempt, *, go_on: bool) -> bool:
        """Write down what came of a try; return whether the lane is still ours, and may go on."""
        if attempt.status is not None and outcome_of(attempt) == "taken":
            written = await self._store.read(
                webhook_tries.taken, held, loaded, attempt.status, ttl=self._settings.claim_ttl
            )
            if written == "settled" and not go_on:
                await self._store.write(webhook_queue.let_go, held)
            if written is not None:
                return written == "settled" and go_on
        settled = await self._store.write(
            webhook_tries.settle, held, loaded.message.id, attempt, self._settings, go_on=go_on
        )
        if settled is None:
            return False
        _tell(held, loaded.message, attempt, settled)
        return settled.more


async def keep_up(store: Store, settings: WebhookSettings) -> None:
    """Give up and forget what is too old or too much, again and again, until cancelled. Any replica may."""
    while True:
        try:
            counts = await store.write(webhook_deliveries.forget, settings)
        except DatabaseUnavailableError as error:
            _log.warning("webhook.database_unavailable", error=error.detail)
        else:
            if any(counts.values()):
                _log.info("webhook.upkeep", **counts)
            if max(counts.values()) >= webhook_deliveries.BATCH:
                continue  # that was not all
        await asyncio.sleep(settings.upkeep_interval)


def _tell(held: Held, message: Message, attempt: Attempt, settled: Settled) -> None:
    verdict = settled.verdict
    log = _log.bind(webhook=held.webhook, message=message_id(message.id), kind=message.kind)
    if verdict.recovered:
        log.info("webhook.recovered")
    if verdict.message == "dead":
        log.warning("webhook.given_up", status=attempt.status, error=attempt.error)
    elif verdict.message == "pending":
        log.info("webhook.failed", status=attempt.status, error=attempt.error, due_at=str(verdict.due_at))
    if verdict.disable is not None:
        log.warning("webhook.disabled", reason=verdict.disable)
