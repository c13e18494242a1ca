"""Templates: how the rooms of a type of conference are set up, and where such conferences may be placed.

A template is kept in versions: saving it makes a new one, and a conference stays with the version that it was
created with, so that its rooms in different clusters are alike. What one field demands of another is checked
here, too, wherever a template is made or read: the message names the field.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta, field

from causeway.api.base import NAME, Answer, ClusterId, Module, Region, Request, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DEFAULT_ROLES",
    "DEFAULT_TEMPLATE",
    "NEVER",
    "UNLIMITED",
    "AudioCodec",
    "Kinds",
    "RoleRules",
    "RoomOptions",
    "Template",
    "TemplateList",
    "TemplateName",
    "TemplateView",
    "Topology",
    "VideoCodec",
    "View",
    "ViewVideo",
]

TemplateName = Annotated[str, Meta(pattern=NAME, max_length=64)]
"""Conferences name their template by it, as their `type`."""
DEFAULT_TEMPLATE: Final = "default"
"""The template of a conference that names no type. It is always there."""

UNLIMITED: Final = -1
NEVER: Final = -1

Limit = Annotated[int, Meta(ge=-1, le=1_000_000)]
Ttl = Annotated[int, Meta(ge=-1, le=31_536_000)]
"""Seconds, at most a year; -1: never. 0 is refused, as it would end what has just been created."""
AudioCodec = Literal["opus", "pcmu", "pcma", "g722", "isac", "ilbc", "aac"]
VideoCodec = Literal["vp8", "vp9", "h264", "h265", "av1"]
LabelKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$(?!\n)", max_length=64)]
LabelValue = Annotated[str, Meta(max_length=128)]


class Kinds(Request, frozen=True, kw_only=True, omit_defaults=False):
    """A permission for each kind of track."""

    audio: bool = False
    video: bool = False


class RoleRules(Request, frozen=True, kw_only=True, omit_defaults=False):
    """What participants in a role may do."""

    role: Role
    publish: Kinds = Kinds()
    subscribe: Kinds = Kinds()


_BOTH: Final = Kinds(audio=True, video=True)
DEFAULT_ROLES: Final = (
    RoleRules(role="presenter", publish=_BOTH, subscribe=_BOTH),
    RoleRules(role="viewer", subscribe=_BOTH),
    RoleRules(role="audio_only_presenter", publish=Kinds(audio=True), subscribe=Kinds(audio=True)),
    RoleRules(role="video_only_viewer", subscribe=Kinds(video=True)),
    RoleRules(role="sip", publish=_BOTH, subscribe=_BOTH),
)
"""The roles of a template that names none of its own; those that OWT rooms have by default."""


class ViewVideo(Request, frozen=True, kw_only=True, omit_defaults=False):
    """The picture of a mixed view."""

    codec: VideoCodec = "vp8"
    width: Annotated[int, Meta(ge=16, le=7680, multiple_of=2)] = 1280
    height: Annotated[int, Meta(ge=16, le=4320, multiple_of=2)] = 720
    framerate: Annotated[int, Meta(ge=1, le=120)] = 24
    """Frames per second."""
    bitrate: Annotated[int, Meta(ge=16, le=200_000)] | None = None
    """kbit/s; None: the cluster's choice."""
    key_frame_interval: Annotated[int, Meta(ge=1, le=600)] = 100
    """Frames."""
    max_inputs: Annotated[int, Meta(ge=1, le=256)] = 16
    """Streams shown at once."""
    layout: Literal["fluid", "lecture"] = "fluid"
    fit: Literal["crop", "letterbox"] = "letterbox"
    keep_active_primary: bool = False
    """Whoever speaks gets the first place."""


class View(Request, frozen=True, kw_only=True, omit_defaults=False):
    """A stream that the cluster mixes out of all others."""

    label: Annotated[str, Meta(pattern=NAME, max_length=64)] = "common"
    audio_codec: AudioCodec = "opus"
    voice_detection: bool = True
    video: ViewVideo | None = ViewVideo()
    """None: sound only."""


class RoomOptions(Request, frozen=True, kw_only=True, omit_defaults=False):
    """How a room is set up, in words that every kind of cluster can be told in its own; see control.drivers.

    Raises ValueError for a set of options that contradict each other.
    """

    publication_limit: Limit = UNLIMITED
    """Streams that may be published in one room at once; -1: any number."""
    participant_limit: Limit = UNLIMITED
    """Participants of the conference at once; -1: any number. No room lets in more than that either."""
    sfu_only: bool = False
    """Forward streams as they are: neither mixed nor transcoded."""
    audio_codecs: Annotated[tuple[AudioCodec, ...], Meta(max_length=16)] = ()
    """Codecs for publishing and subscribing, the preferred one first. Empty: the choice of the cluster."""
    video_codecs: Annotated[tuple[VideoCodec, ...], Meta(max_length=16)] = ()
    views: Annotated[tuple[View, ...], Meta(max_length=8)] = ()
    roles: Annotated[tuple[RoleRules, ...], Meta(min_length=1, max_length=64)] = DEFAULT_ROLES
    select_active_audio: bool = False
    """Forward only the loudest speakers' sound."""
    notify_participants: bool = True
    """Clients are told who joins and leaves."""
    notify_streams: bool = True
    """Clients are told which streams come and go."""

    def __post_init__(self) -> None:
        """Check what the fields demand of each other."""
        if self.participant_limit == 0:
            raise ValueError("participant_limit: 0 would let nobody in; -1 means any number")
        if self.sfu_only and self.views:
            raise ValueError("views: must be empty with sfu_only, as nothing is mixed then")
        _unique("audio_codecs", self.audio_codecs)
        _unique("video_codecs", self.video_codecs)
        _unique("views", (view.label for view in self.views))
        _unique("roles", (rules.role for rules in self.roles))
        if self.publication_limit != 0 and not any(r.publish.audio or r.publish.video for r in self.roles):
            raise ValueError("roles: none of them may publish; set publication_limit to 0 if that is meant")
        for view in self.views:
            if self.audio_codecs and view.audio_codec not in self.audio_codecs:
                raise ValueError(
                    f"views: {view.label} has audio_codec {view.audio_codec}, not in audio_codecs"
                )
            if view.video is not None and self.video_codecs and view.video.codec not in self.video_codecs:
                raise ValueError(
                    f"views: {view.label} has video codec {view.video.codec}, not in video_codecs"
                )


class Topology(Request, frozen=True, kw_only=True, omit_defaults=False):
    """How a conference's clusters are linked with each other.

    A tree or a star needs links that pass on what they received. Where they cannot, a mesh is used, and the
    conference's plan says so.
    """

    kind: Literal["mesh", "tree", "star"] = "mesh"
    """`mesh`: each with each. `tree`: the least total latency. `star`: everybody through one hub."""
    degree_limit: Annotated[int, Meta(ge=2, le=64)] = 4
    """Of a tree: links at one cluster."""
    hubs: Annotated[tuple[ClusterId, ...], Meta(max_length=16)] = ()
    """Of a star: regions or clusters that shall be its hub, the most wanted first. Empty: the nearest."""

    def __post_init__(self) -> None:
        """Check what the fields demand of each other."""
        _unique("topology.hubs", self.hubs)


class Template(RoomOptions, frozen=True, kw_only=True, omit_defaults=False):
    """`PUT /v1/templates/{name}`: the rooms' options, and what concerns the conference as a whole."""

    required_modules: Annotated[tuple[Module, ...], Meta(max_length=32)] = ()
    """Modules (capacity) that a cluster must have to be given such a conference."""
    selector: Annotated[dict[LabelKey, LabelValue], Meta(max_length=32)] = field(default_factory=dict)
    """Labels that a cluster must have, with these values."""
    residency: Annotated[tuple[Region, ...], Meta(max_length=64)] = ()
    """The only regions where such a conference may be. Empty: anywhere."""
    policy: Annotated[str, Meta(pattern=NAME, max_length=64)] = "default"
    """Name of the placement policy."""
    topology: Topology = field(default_factory=Topology)
    """How the clusters of such a conference are linked."""
    empty_ttl: Ttl = 86_400
    """Seconds without participants after which the conference ends by itself; -1: never. Default a day."""

    def __post_init__(self) -> None:
        """Check what the fields demand of each other."""
        super().__post_init__()
        if self.empty_ttl == 0:
            raise ValueError("empty_ttl: must be at least 1 second, or -1 for never")
        _unique("required_modules", self.required_modules)
        _unique("residency", self.residency)


class TemplateView(Answer, frozen=True, kw_only=True):
    """One version of a template. Its ETag is of `version` and `retired_at`."""

    name: str
    version: int
    """Counts from 1; no number is ever given twice. 0: what is built in, before anything was saved."""
    created_at: datetime
    retired_at: datetime | None
    """Since when no new conference may be of this type."""
    conferences: int
    """How many there are of this type now, in all versions."""
    template: Template


class TemplateList(Answer, frozen=True, kw_only=True):
    """`GET /v1/templates`: the newest version of each, by name."""

    templates: list[TemplateView]


def _unique(field: str, values: Iterable[str]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f"{field}: {value} is there {times} times")
