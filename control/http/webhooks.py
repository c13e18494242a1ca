"""Routes for operators: webhooks, what became of their messages, and delivering those again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from causeway.api import (
    ConferenceId,
    DeliveryList,
    DeliveryState,
    DeliveryView,
    ReplayAnswer,
    ReplayRequest,
    WebhookCreate,
    WebhookCreated,
    WebhookList,
    WebhookPatch,
    WebhookRotate,
    WebhookSecret,
    WebhookTest,
    WebhookView,
)
from control.http.edge import Body, caller_of, if_match, json, no_content, part, query_of
from control.http.entry import IF_MATCH, OPERATORS, Entry
from control.http.etag import tag_of
from control.registry import webhook_deliveries, webhooks
from control.registry.paging import Place

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.delivery.webhooks import Webhooks
    from control.registry.store import Store
    from control.webhook_settings import WebhookSettings

__all__ = ["DeliveryQuery", "WebhookRoutes"]

_CREATE: Final = Body(WebhookCreate)
_PATCH: Final = Body(WebhookPatch)
_ROTATE: Final = Body(WebhookRotate, empty=WebhookRotate())
_REPLAY: Final = Body(ReplayRequest)
_TAG: Final = "webhooks"


class DeliveryQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `GET /v1/webhooks/{webhook}/deliveries` is asked for."""

    state: DeliveryState | None = None
    conference: ConferenceId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    """`next` of the page before."""


class WebhookRoutes:
    """Handlers under /v1/webhooks."""

    def __init__(self, store: Store, service: Webhooks, settings: WebhookSettings) -> None:
        self._store = store
        self._service = service
        self._settings = settings

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        webhook = "/v1/webhooks/{webhook}"
        message = f"{webhook}/deliveries/{{message}}"
        unknown = ("webhook-unknown",)
        return [
            Entry(
                "GET",
                "/v1/webhooks",
                OPERATORS,
                self.index,
                tag=_TAG,
                summary="List the webhooks, oldest first.",
                answers={200: WebhookList},
            ),
            Entry(
                "POST",
                "/v1/webhooks",
                OPERATORS,
                self.create,
                tag=_TAG,
                summary="Have events sent to an address; the secret is in this answer and nowhere else.",
                body=_CREATE,
                answers={201: WebhookCreated},
                problems=("webhook-limit",),
            ),
            Entry(
                "GET",
                webhook,
                OPERATORS,
                self.show,
                tag=_TAG,
                summary="Show a webhook, and how it is doing.",
                answers={200: WebhookView},
                tagged=True,
                problems=unknown,
            ),
            Entry(
                "PATCH",
                webhook,
                OPERATORS,
                self.patch,
                tag=_TAG,
                summary="Change a webhook; enabling it forgets its failures.",
                headers=(IF_MATCH,),
                body=_PATCH,
                answers={200: WebhookView},
                tagged=True,
                problems=(*unknown, "precondition-failed"),
            ),
            Entry(
                "DELETE",
                webhook,
                OPERATORS,
                self.remove,
                tag=_TAG,
                summary="Delete a webhook with everything that waits for it.",
                answers={204: None},
                problems=unknown,
            ),
            Entry(
                "POST",
                f"{webhook}/secret",
                OPERATORS,
                self.rotate,
                tag=_TAG,
                summary="Replace the secret; for a while messages are signed with both.",
                body=_ROTATE,
                answers={200: WebhookSecret},
                problems=unknown,
            ),
            Entry(
                "POST",
                f"{webhook}/test",
                OPERATORS,
                self.test,
                tag=_TAG,
                summary="Send it a test message now, and answer what came of it.",
                answers={200: WebhookTest},
                problems=unknown,
            ),
            Entry(
                "POST",
                f"{webhook}/replay",
                OPERATORS,
                self.replay_all,
                tag=_TAG,
                summary="Deliver again what happened in a time, or only what was given up.",
                body=_REPLAY,
                answers={202: ReplayAnswer},
                problems=unknown,
            ),
            Entry(
                "GET",
                f"{webhook}/deliveries",
                OPERATORS,
                self.deliveries,
                tag=_TAG,
                summary="List messages and what became of them, newest events first.",
                query=DeliveryQuery,
                answers={200: DeliveryList},
                problems=unknown,
            ),
            Entry(
                "GET",
                message,
                OPERATORS,
                self.delivery,
                tag=_TAG,
                summary="Show what became of a message.",
                answers={200: DeliveryView},
                problems=(*unknown, "delivery-unknown"),
            ),
            Entry(
                "POST",
                f"{message}/replay",
                OPERATORS,
                self.replay,
                tag=_TAG,
                summary="Deliver a message again; one that waits is due at once.",
                answers={202: DeliveryView},
                problems=(*unknown, "delivery-unknown"),
            ),
        ]

    async def index(self, request: Request) -> Response:
        """GET /v1/webhooks."""
        del request
        return json(WebhookList(webhooks=await self._store.read(webhooks.find_all)))

    async def create(self, request: Request) -> Response:
        """POST /v1/webhooks."""
        wish: WebhookCreate = await _CREATE.read(request)
        made = await self._service.create(wish, by=caller_of(request).id)
        return _secret(json(made, 201))

    async def show(self, request: Request) -> Response:
        """GET /v1/webhooks/{webhook}."""
        return _tagged(await self._store.read(webhooks.show, _webhook(request)))

    async def patch(self, request: Request) -> Response:
        """PATCH /v1/webhooks/{webhook}."""
        wanted: WebhookPatch = await _PATCH.read(request)
        return _tagged(
            await self._service.patch(
                _webhook(request), wanted, check=if_match(request).check, by=caller_of(request).id
            )
        )

    async def remove(self, request: Request) -> Response:
        """DELETE /v1/webhooks/{webhook}."""
        await self._store.write(webhooks.remove, _webhook(request), by=caller_of(request).id)
        return no_content()

    async def rotate(self, request: Request) -> Response:
        """POST /v1/webhooks/{webhook}/secret."""
        webhook = _webhook(request)
        wanted: WebhookRotate = await _ROTATE.read(request)
        return _secret(json(await self._service.rotate(webhook, wanted, by=caller_of(request).id)))

    async def test(self, request: Request) -> Response:
        """POST /v1/webhooks/{webhook}/test."""
        return json(await self._service.test(_webhook(request)))

    async def replay_all(self, request: Request) -> Response:
        """POST /v1/webhooks/{webhook}/replay."""
        webhook = _webhook(request)
        wanted: ReplayRequest = await _REPLAY.read(request)
        queued = await self._store.write(
            webhook_deliveries.replay_all,
            webhook,
            wanted,
            limit=self._settings.max_replay,
            by=caller_of(request).id,
        )
        return json(ReplayAnswer(queued=queued), 202)

    async def deliveries(self, request: Request) -> Response:
        """GET /v1/webhooks/{webhook}/deliveries."""
        query = query_of(request, DeliveryQuery)
        page = await self._store.snapshot(
            webhook_deliveries.list_some,
            _webhook(request),
            state=query.state,
            conference=query.conference,
            after=None if query.cursor is None else Place.read(query.cursor),
            limit=query.limit,
        )
        return json(page)

    async def delivery(self, request: Request) -> Response:
        """GET /v1/webhooks/{webhook}/deliveries/{message}."""
        view = await self._store.snapshot(
            webhook_deliveries.show, _webhook(request), part(request, "message")
        )
        return json(view)

    async def replay(self, request: Request) -> Response:
        """POST /v1/webhooks/{webhook}/deliveries/{message}/replay."""
        view = await self._store.write(
            webhook_deliveries.replay,
            _webhook(request),
            part(request, "message"),
            by=caller_of(request).id,
        )
        return json(view, 202)


def _webhook(request: Request) -> str:
    return part(request, "webhook")


def _tagged(view: WebhookView) -> Response:
    return json(view, tag=tag_of(webhooks.settings(view)))


def _secret(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
