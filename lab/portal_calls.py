"""What a client may say to the portal, and what it is answered. No IO.

Requests are `{id, method, params}`. Every method's params are a struct below; unknown fields are ignored.
Errors carry a stable word, which is the room's where the room refuses.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from bridges.wire.objects import Id, Track, TrackKind
from lab.hub import Origin, RoutedTrack
from lab.room_cascade import KINDS_OF_TRACK
from lab.room_outputs import SubscriptionKey, TrackKey
from lab.room_rules import RoomError
from lab.tokens import TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.rooms import Rooms
    from lab.routing import Routing
    from lab.signed_tokens import SignedTokens
    from lab.tokens import Admission, Tokens

__all__ = ["CallError", "Member", "PortalCalls", "Request"]

T = TypeVar("T")

_Host = Annotated[str, Meta(min_length=1, max_length=253)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_SourceId = Annotated[str, Meta(min_length=1, max_length=100)]


class CallError(Exception):
    """A call is answered with this error; `reason` is its stable word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Request(Struct, frozen=True):
    """A call; `id` comes back in the answer."""

    id: int
    method: Annotated[str, Meta(max_length=64)]
    params: dict[str, Any] = {}


class Member(Struct, frozen=True):
    """Who a connection is, once it has joined."""

    room: str
    participant: str


class _Join(Struct):
    token: Annotated[str, Meta(max_length=4096)]


class _Offer(Struct):
    type: TrackKind
    id: _SourceId | None = None
    format: dict[str, Any] | None = None


class _Address(Struct):
    ip: _Host
    port: _Port


class _Publish(Struct):
    tracks: Annotated[list[_Offer], Meta(max_length=2)]
    source: _Address
    attributes: dict[str, Any] | None = None


class _Stream(Struct):
    stream: Id


class _Subscribe(Struct):
    stream: Id
    tracks: Annotated[list[TrackKind], Meta(max_length=2)]


class _Unsubscribe(Struct):
    subscription: Id


class _Pause(Struct):
    subscription: Id
    track: str
    paused: bool


class _Mute(Struct):
    stream: Id
    track: str
    muted: bool


class _Update(Struct):
    stream: Id
    attributes: dict[str, Any] | None = None


class PortalCalls:
    """Serves calls on rooms. `portal_id` is what participants carry as the portal they came through."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        routing: Routing,
        tokens: Tokens,
        signed: SignedTokens | None = None,
        portal_id: str,
        internal: Callable[[], tuple[str, int]],
        foreign_sources: bool = False,
    ) -> None:
        """Take the parts; `internal` gives host and port of the hub, `signed` takes control's own tokens.

        Without `foreign_sources` a client's tracks are fetched from the client's own address only, so that
        nobody can have the cluster connect to somewhere else.
        """
        self._rooms = rooms
        self._routing = routing
        self._tokens = tokens
        self._signed = signed
        self._portal_id = portal_id
        self._internal = internal
        self._foreign_sources = foreign_sources

    def read(self, text: str) -> Request:
        """Read a message. Raises CallError `bad-request`."""
        try:
            return _REQUEST.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise CallError("bad-request", str(error)) from None

    def join(self, params: dict[str, Any]) -> tuple[Member, dict[str, Any]]:
        """`join {token}` → who the connection is now, and the answer. Raises CallError."""
        try:
            admission = self._admit(_params(params, _Join).token)
            participant = self._rooms.join(
                admission.room,
                user=admission.user,
                role=admission.role,
                portal=self._portal_id,
                participant=admission.participant,
            )
        except (TokenError, RoomError) as error:
            raise CallError(
                error.reason if isinstance(error, RoomError) else error.code, str(error)
            ) from None
        running = self._rooms.get_running(admission.room)
        assert running is not None
        host, port = self._internal()
        answer = {
            "participant": participant,
            "room": admission.room,
            "participants": running.room.participants,
            "streams": running.room.streams,
            "internal": {"ip": host, "port": port},
        }
        return Member(admission.room, participant), answer

    def _admit(self, token: str) -> Admission:
        # OWT's token is base64, which has no dots; a signed one has two.
        if self._signed is not None and "." in token:
            return self._signed.redeem(token)
        return self._tokens.redeem(token)

    def serve(self, member: Member, request: Request, *, remote: str) -> Any:
        """Serve a member's call and return the answer; `remote` is its address. Raises CallError."""
        handler = self._HANDLERS.get(request.method)
        if handler is None:
            raise CallError("no-such-method", "there is no such method")
        try:
            return handler(self, member, request.params, remote)
        except RoomError as error:
            raise CallError(error.reason, str(error)) from None

    def _publish(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        publish = _params(params, _Publish)
        if not self._foreign_sources and not _same_address(publish.source.ip, remote):
            raise CallError("bad-source", "tracks are fetched from the client's own address only")
        stream_id = secrets.token_hex(10)
        tracks = [
            Track(id=offer.id or secrets.token_hex(16), type=offer.type, format=offer.format)
            for offer in publish.tracks
        ]
        self._rooms.act(
            member.room,
            lambda room: room.publish(member.participant, stream_id, tracks, attributes=publish.attributes),
        )
        for track in tracks:
            routed = RoutedTrack(member.room, TrackKey(self._rooms.cluster, stream_id, track.type))
            self._routing.set_origin(routed, Origin(publish.source.ip, publish.source.port, track.id))
        return {"stream": stream_id, "tracks": [{"id": track.id, "type": track.type} for track in tracks]}

    def _unpublish(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        del remote
        stream = _params(params, _Stream).stream
        self._rooms.act(member.room, lambda room: room.unpublish(member.participant, stream))
        return {}

    def _subscribe(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        del remote
        subscribe = _params(params, _Subscribe)
        key = SubscriptionKey(member.participant, secrets.token_hex(10))
        self._rooms.act(
            member.room,
            lambda room: room.subscribe(key.owner, key.id, subscribe.stream, subscribe.tracks),
        )
        sinks = self._routing.sinks(member.room, key)
        return {
            "subscription": key.id,
            "tracks": [{"type": kind, "id": sink} for kind, sink in sinks.items()],
        }

    def _unsubscribe(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        del remote
        subscription = _params(params, _Unsubscribe).subscription
        self._rooms.act(member.room, lambda room: room.unsubscribe(member.participant, subscription))
        return {}

    def _pause(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        """Let nothing of a subscription pass, or again everything: OWT's subscription-control."""
        del remote
        pause = _params(params, _Pause)
        key = SubscriptionKey(member.participant, pause.subscription)
        kinds = KINDS_OF_TRACK.get(pause.track, ())
        sinks = self._routing.sinks(member.room, key)
        if not sinks:
            raise CallError("no-such-subscription", "there is no such subscription")
        if not any(kind in sinks for kind in kinds):
            raise CallError("no-such-track", "a track is audio, video or av, and one that is subscribed to")
        for kind in kinds:
            self._routing.set_paused(member.room, key, kind, paused=pause.paused)
        return {}

    def _mute(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        del remote
        mute = _params(params, _Mute)
        self._rooms.act(
            member.room,
            lambda room: room.set_mute(member.participant, mute.stream, mute.track, muted=mute.muted),
        )
        return {}

    def _update(self, member: Member, params: dict[str, Any], remote: str) -> Any:
        del remote
        update = _params(params, _Update)
        self._rooms.act(
            member.room,
            lambda room: room.set_attributes(member.participant, update.stream, update.attributes),
        )
        return {}

    _HANDLERS: Final[dict[str, Callable[[PortalCalls, Member, dict[str, Any], str], Any]]] = {
        "publish": _publish,
        "unpublish": _unpublish,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "mute": _mute,
        "pause": _pause,
        "update": _update,
    }


_REQUEST: Final = msgspec.json.Decoder(Request)


def _params(params: dict[str, Any], shape: type[T]) -> T:
    try:
        return msgspec.convert(params, shape)
    except msgspec.ValidationError as error:
        raise CallError("bad-request", str(error)) from None


def _same_address(claimed: str, remote: str) -> bool:
    try:
        return ipaddress.ip_address(claimed) == ipaddress.ip_address(remote)
    except ValueError:
        return claimed == remote
