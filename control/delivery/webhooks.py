"""Webhooks as a service: made with a secret, given a new one, tried out; and how a message to one looks.

A message is the JSON `{"type": …, "timestamp": …, "data": {…}}` of Standard Webhooks, signed with every
secret that is valid. Its id is the event's: the same however often it is sent, and to whichever webhooks.
"""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from causeway.api import WebhookCreated, WebhookSecret, WebhookTest
from control.delivery.attempts import Attempt, outcome_of
from control.delivery.signing import headers, new_secret
from control.errors import InvalidRequestError
from control.registry import webhooks
from control.registry.webhook_deliveries import message_id
from control.registry.webhook_tries import Message
from control.security.vault import SealError

if TYPE_CHECKING:
    from collections.abc import Callable

    from causeway.api import WebhookCreate, WebhookPatch, WebhookRotate, WebhookView
    from control.delivery.guard import Guard
    from control.delivery.sender import Sender
    from control.registry.store import Store
    from control.registry.webhook_tries import Target
    from control.security.vault import Vault
    from control.webhook_settings import WebhookSettings

__all__ = ["TEST", "Webhooks", "body_of"]

_log = structlog.get_logger(__name__)

TEST: Final = "webhook.test"
"""The type of a test message, whatever the webhook asks for."""
_TEST_TIMEOUT: Final = 8.0
"""Seconds at most: somebody waits, whose own patience is usually ten."""
_ID_BYTES: Final = 8
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class Webhooks:
    """Makes and changes webhooks, and sends one message to one."""

    def __init__(
        self, store: Store, vault: Vault, guard: Guard, sender: Sender, settings: WebhookSettings
    ) -> None:
        self._store = store
        self._vault = vault
        self._guard = guard
        self._sender = sender
        self._settings = settings

    async def create(self, wish: WebhookCreate, *, by: str) -> WebhookCreated:
        """Make a webhook; `by`: id of the operator key. Raises InvalidRequestError and WebhookLimitError."""
        self._check(wish.url)
        webhook = f"wh_{secrets.token_hex(_ID_BYTES)}"
        secret, sealed = self._new_secret(webhook)
        view = await self._store.write(
            webhooks.create, webhook, wish, sealed=sealed, by=by, limit=self._settings.max_webhooks
        )
        _log.info("webhook.created", webhook=webhook, by=by)
        return WebhookCreated(secret=secret, **msgspec.structs.asdict(view))

    async def patch(
        self, webhook: str, request: WebhookPatch, *, check: Callable[[object | None], None], by: str
    ) -> WebhookView:
        """Change a webhook. Raises InvalidRequestError, WebhookUnknownError and PreconditionFailedError."""
        if isinstance(request.url, str):
            self._check(request.url)
        return await self._store.write(webhooks.patch, webhook, request, check=check, by=by)

    async def rotate(self, webhook: str, request: WebhookRotate, *, by: str) -> WebhookSecret:
        """Give it a new secret. Raises WebhookUnknownError."""
        secret, sealed = self._new_secret(webhook)
        until = await self._store.write(webhooks.rotate, webhook, sealed=sealed, keep=request.keep, by=by)
        _log.info("webhook.secret_replaced", webhook=webhook, by=by)
        return WebhookSecret(secret=secret, previous_secret_until=until)

    async def test(self, webhook: str) -> WebhookTest:
        """Send it a message that says nothing, and tell what came of it. Raises WebhookUnknownError."""
        target = await self._store.read(webhooks.target, webhook)
        message = Message(
            id=uuid.uuid4(),
            conference=None,
            seq=None,
            kind=TEST,
            at=target.now,
            body={"webhook": webhook},
        )
        attempt = await self.send(target, message, timeout=min(_TEST_TIMEOUT, self._settings.timeout))
        return WebhookTest(
            message=message_id(message.id),
            taken=outcome_of(attempt) == "taken",
            status=attempt.status,
            error=attempt.error or None,
            seconds=round(attempt.seconds, 3),
        )

    async def send(self, target: Target, message: Message, *, timeout: float | None = None) -> Attempt:
        """Sign a message and send it, once; `timeout` in seconds replaces that of the settings."""
        try:
            valid = [self._vault.open(each, webhooks.SEALED_FOR, target.webhook) for each in target.sealed]
        except SealError as error:
            _log.error("webhook.seal_broken", webhook=target.webhook, error=str(error))
            return Attempt(status=None, error="its secret does not open; was control.master_key changed?")
        body = body_of(message)
        signed = headers(message_id(message.id), body, timestamp=int(target.now.timestamp()), valid=valid)
        return await self._sender.send(target.url, body, signed, timeout=timeout)

    def _check(self, url: str) -> None:
        try:
            self._guard.check_url(url)
        except ValueError as error:
            raise InvalidRequestError(f"url: {error}") from None

    def _new_secret(self, webhook: str) -> tuple[str, bytes]:
        secret = new_secret()
        return secret, self._vault.seal(secret, webhooks.SEALED_FOR, webhook)


def body_of(message: Message) -> bytes:
    """Return a message's body; the same bytes each time."""
    data: dict[str, Any] = dict(message.body)
    if message.conference is not None:
        data |= {"conference": message.conference, "seq": message.seq}
    return _ENCODER.encode({"type": message.kind, "timestamp": message.at, "data": data})
