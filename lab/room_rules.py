"""What a room allows: its limits, what each role may do, and the error that says no.

The shapes are OWT's room options (`participantLimit`, `inputLimit`, -1 for none; `roles` with a publish and a
subscribe permission for audio and video each).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from msgspec import Meta, Struct, field

from bridges.wire.objects import TrackKind
from causeway.errors import CausewayError

if TYPE_CHECKING:
    from bridges.wire.objects import Track

__all__ = ["DEFAULT_ROLES", "Kinds", "RoleRules", "RoomError", "RoomRules"]


class RoomError(CausewayError):
    """A room refuses what was asked. `reason` is the stable word that clients and bridges see."""

    code: ClassVar[str] = "room-refused"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Kinds(Struct, frozen=True):
    """A permission for each kind of track."""

    audio: bool = False
    video: bool = False

    def allows(self, kind: TrackKind) -> bool:
        """Whether tracks of this kind are allowed."""
        return self.audio if kind == "audio" else self.video


class RoleRules(Struct, frozen=True):
    """What people in a role may do."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    publish: Kinds = Kinds()
    subscribe: Kinds = Kinds()


_BOTH: Final = Kinds(audio=True, video=True)
DEFAULT_ROLES: Final = (
    RoleRules("presenter", _BOTH, _BOTH),
    RoleRules("viewer", Kinds(), _BOTH),
    RoleRules("audio_only_presenter", Kinds(audio=True), Kinds(audio=True)),
    RoleRules("video_only_viewer", Kinds(), Kinds(video=True)),
    RoleRules("sip", _BOTH, _BOTH),
)
"""The roles of a room that names none of its own, after OWT's defaults."""


class RoomRules(Struct, frozen=True, kw_only=True):
    """Limits and roles of one room. -1 is no limit of the room's own."""

    participant_limit: Annotated[int, Meta(ge=-1)] = -1
    """Local participants at once."""
    input_limit: Annotated[int, Meta(ge=-1)] = -1
    """Local streams at once."""
    codecs: dict[TrackKind, frozenset[str]] = field(default_factory=dict)
    """What may be published, by kind of track; a kind that is not here: anything."""
    roles: tuple[RoleRules, ...] = DEFAULT_ROLES
    max_streams_per_participant: Annotated[int, Meta(ge=1)] = 16
    max_subscriptions_per_owner: Annotated[int, Meta(ge=1)] = 1_000
    """Subscriptions of one participant, or of one bridge, at once."""
    max_per_peer: Annotated[int, Meta(ge=1)] = 10_000
    """Participants, and likewise streams, that one other cluster may bring in."""

    def accepts(self, track: Track) -> bool:
        """Whether a track of this format may be published."""
        codecs = self.codecs.get(track.type)
        return codecs is None or (track.format or {}).get("codec") in codecs

    def role(self, name: str) -> RoleRules:
        """Return the rules of a role; raises RoomError for one that the room does not have."""
        for rules in self.roles:
            if rules.role == name:
                return rules
        raise RoomError("unknown-role", f"the room has no role {name!r}")
