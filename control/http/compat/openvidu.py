"""OpenVidu 2's side of the API: the webhook by which a deployment tells who comes and goes.

    POST /openvidu/{enrolment key}/webhook    {event, timestamp, sessionId, …}    → 200

Messages as OpenVidu 2.32 sends them: flat objects that name their event; the form of its call detail records,
`{"<event>": {…}}`, is understood, too. Older servers leave fields out and call a connection a participant.
It sends each message from memory, several times when it is in doubt, and none again that is not answered 200:
so an event that is none of ours is answered 200 as well, and nothing depends on any of them. The key is a
part of the path because the messages are not signed; any key that is not valid is answered 404.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.responses import PlainTextResponse

from control.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from control.http.edge import Body
from control.http.entry import Entry

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.http.gate import Gate
    from control.openvidu_clusters import OpenViduClusters

__all__ = ["OpenViduRoutes", "read_event"]

_EVENTS: Final = ("participantJoined", "participantLeft", "sessionDestroyed")
"""Those that are acted on."""

_Id = Annotated[str, Meta(min_length=1, max_length=512)]


class Event(Struct, frozen=True, kw_only=True, rename="camel"):
    """A message; fields that control does not use are skipped."""

    session_id: _Id
    connection_id: _Id | None = None
    participant_id: _Id | None = None
    """What older servers call it."""

    @property
    def person(self) -> str | None:
        """Who it is about."""
        return self.connection_id or self.participant_id


def read_event(message: dict[str, Any]) -> tuple[str, Event] | None:
    """Return the event and what it says, None if it is none that matters. Raises InvalidRequestError."""
    name: Any = message.get("event")
    body: Any = message
    if name is None and len(message) == 1:
        ((name, body),) = message.items()
    if name not in _EVENTS:
        return None
    try:
        event = msgspec.convert(body, Event)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{name}: {error}") from None
    if name != "sessionDestroyed" and event.person is None:
        raise InvalidRequestError(f"{name}: connectionId is missing")
    return name, event


_MESSAGE: Final = Body(dict[str, Any])


class OpenViduRoutes:
    """Handlers under /openvidu."""

    def __init__(self, gate: Gate, clusters: OpenViduClusters) -> None:
        self._gate = gate
        self._clusters = clusters

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "POST",
                "/openvidu/{secret}/webhook",
                None,
                self.webhook,
                tag="openvidu",
                summary="An OpenVidu deployment tells who comes and goes.",
                body=_MESSAGE,
                answers={200: str},
                problems=("not-found", "rate-limited", "overloaded"),
            )
        ]

    async def webhook(self, request: Request) -> Response:
        """POST /openvidu/{secret}/webhook."""
        await self._admit(request)
        told = read_event(await _MESSAGE.read(request))
        if told is not None:
            name, event = told
            match name:
                case "participantJoined":
                    await self._clusters.joined(event.session_id)
                case "participantLeft":
                    await self._clusters.left(event.session_id, event.person or "")
                case _:
                    await self._clusters.closed(event.session_id)
        return PlainTextResponse("ok")

    async def _admit(self, request: Request) -> None:
        """Raise NotFoundError unless the key in the path may enrol clusters."""
        try:
            caller = await self._gate.identify(request, f"Bearer {request.path_params['secret']}")
        except UnauthenticatedError:
            caller = None
        if caller is None or caller.kind != "enrolment":
            raise NotFoundError("there is nothing at this path")
