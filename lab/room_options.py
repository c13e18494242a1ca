"""A room as the management API knows it: OWT's room object and options, and the rules that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from lab.room_rules import DEFAULT_ROLES, RoleRules, RoomRules

if TYPE_CHECKING:
    from bridges.wire.objects import TrackKind

__all__ = ["RoomOptions", "RoomRecord"]

_Limit = Annotated[int, Meta(ge=-1, le=1_000_000)]


class MediaIn(Struct, frozen=True, kw_only=True):
    """Formats that may be published, as `{codec, …}` each."""

    audio: Annotated[list[dict[str, Any]], Meta(max_length=64)] = []
    video: Annotated[list[dict[str, Any]], Meta(max_length=64)] = []

    def codecs(self) -> dict[TrackKind, frozenset[str]]:
        """Return their codecs."""
        return {
            "audio": frozenset(str(each.get("codec")) for each in self.audio),
            "video": frozenset(str(each.get("codec")) for each in self.video),
        }


class RoomOptions(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`options` of `POST rooms` and `PUT rooms/{id}`.

    Limits, roles and the codecs that may be published are acted upon; what concerns mixing, transcoding and
    recording is kept and shown, as this cluster forwards only.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~@:-]*$(?!\n)", max_length=128)] | None = field(
        name="_id", default=None
    )
    placement_epoch: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    """The placement of the conference that control made the room for; tokens must be for it. Not OWT's."""
    participant_limit: _Limit = -1
    input_limit: _Limit = -1
    roles: Annotated[list[RoleRules], Meta(max_length=64)] | None = None
    views: Any = None
    media_in: MediaIn | None = None
    media_out: Any = None
    transcoding: Any = None
    notifying: Any = None
    select_active_audio: Any = None
    sip: Any = None


class RoomRecord(Struct, frozen=True, kw_only=True):
    """A room that exists, whether or not anybody has joined it."""

    id: str
    name: str
    options: RoomOptions

    def shown(self) -> dict[str, Any]:
        """Return OWT's room object."""
        options = msgspec.to_builtins(self.options)
        return {
            "participantLimit": self.options.participant_limit,
            "inputLimit": self.options.input_limit,
            "roles": msgspec.to_builtins(self.options.roles or DEFAULT_ROLES),
            **options,
            "_id": self.id,
            "id": self.id,
            "name": self.name,
        }

    def rules(self, *, max_streams_per_participant: int) -> RoomRules:
        """Return what the room allows."""
        return RoomRules(
            participant_limit=self.options.participant_limit,
            input_limit=self.options.input_limit,
            codecs=self.options.media_in.codecs() if self.options.media_in else {},
            roles=tuple(self.options.roles) if self.options.roles else DEFAULT_ROLES,
            max_streams_per_participant=max_streams_per_participant,
        )
