"""What a room of the Janus server and a room of the cluster lack to show the same. Pure.

`Seen` is what there is: who is in the server's room, which streams other clusters have, and whose tracks are
pulled here. `Done` is what has been made of it so far. `plan` names what to do next; whoever does it notes it
in `Done`. So nothing is lost by a failure, and after a loss it is enough to forget what is gone with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from bridges.wire.objects import TrackKind
from edge.janus.messages import RoomId
from edge.rtp.track import Codec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bridges.wire.objects import Stream
    from edge.janus.messages import Offered, Participant, RoomNews

__all__ = [
    "Action",
    "Add",
    "Done",
    "FarStream",
    "Forward",
    "Join",
    "Leave",
    "Person",
    "Publish",
    "Remove",
    "Seen",
    "StopForwarding",
    "Track",
    "Unpublish",
    "far_stream",
    "grouped",
    "note",
    "person_of",
    "plan",
    "tracks_of",
]


class Track(Struct, frozen=True):
    """A track in the server's room; `mindex` is its place among those of its publisher."""

    kind: TrackKind
    codec: Codec
    mindex: int
    simulcast: bool = False


class Person(Struct, frozen=True):
    """Somebody who has joined the server's room, and what they publish."""

    display: str = ""
    tracks: tuple[Track, ...] = ()


class FarStream(Struct, frozen=True):
    """A stream of another cluster that can be shown to those in the server's room."""

    display: str
    tracks: tuple[tuple[TrackKind, Codec], ...]


class Seen(Struct, kw_only=True):
    """What there is."""

    people: dict[RoomId, Person] = field(default_factory=dict)
    """In order of arrival."""
    far: dict[str, FarStream] = field(default_factory=dict)
    """By the stream's id in the cluster's room."""
    pulled: set[RoomId] = field(default_factory=set)
    """Of whom somebody wants a track."""
    max_shown: int = 1 << 16
    """Streams of other clusters that are shown at once."""


class Done(Struct, kw_only=True):
    """What has been made of it."""

    joined: set[RoomId] = field(default_factory=set)
    published: dict[RoomId, tuple[Track, ...]] = field(default_factory=dict)
    forwarded: set[RoomId] = field(default_factory=set)
    """Whose tracks the server sends to us."""
    added: dict[str, FarStream] = field(default_factory=dict)


class Join(Struct, frozen=True):
    """Have somebody join the cluster's room."""

    person: RoomId


class Leave(Struct, frozen=True):
    """Have them leave it."""

    person: RoomId


class Publish(Struct, frozen=True):
    """Announce these tracks of somebody who has joined."""

    person: RoomId
    tracks: tuple[Track, ...]


class Unpublish(Struct, frozen=True):
    """Take that back."""

    person: RoomId


class Forward(Struct, frozen=True):
    """Have the server send somebody's tracks to us."""

    person: RoomId


class StopForwarding(Struct, frozen=True):
    """Have it send them no more."""

    person: RoomId


class Add(Struct, frozen=True):
    """Show a stream of another cluster in the server's room."""

    stream: str
    shown: FarStream


class Remove(Struct, frozen=True):
    """Show it no more."""

    stream: str


_CODECS: Final = {codec.value: codec for codec in Codec}
Action = Join | Leave | Publish | Unpublish | Forward | StopForwarding | Add | Remove


def plan(seen: Seen, done: Done) -> Iterator[Action]:
    """Return what is to be done: each can be done at once, and some others only after it.

    So plan again after each; when all is done, it returns nothing.
    """
    yield from _endings(seen, done)
    yield from (Join(person) for person in seen.people if person not in done.joined)
    yield from (Leave(person) for person in done.joined if person not in seen.people)
    yield from _beginnings(seen, done)


def _endings(seen: Seen, done: Done) -> Iterator[Action]:
    for stream, shown in done.added.items():
        if not seen.people or seen.far.get(stream) != shown:
            yield Remove(stream)
    for person in done.forwarded:
        if not (_holds(seen, done, person) and person in seen.pulled):
            yield StopForwarding(person)
    for person in done.published:
        if not _holds(seen, done, person) and person not in done.forwarded:
            yield Unpublish(person)


def _beginnings(seen: Seen, done: Done) -> Iterator[Action]:
    for person, there in seen.people.items():
        if person not in done.joined:
            continue
        if there.tracks and person not in done.published:
            yield Publish(person, there.tracks)
        elif person in seen.pulled and _holds(seen, done, person) and person not in done.forwarded:
            yield Forward(person)
    if done.joined & seen.people.keys() and len(done.added) < seen.max_shown:
        for stream, shown in seen.far.items():
            if stream not in done.added:
                yield Add(stream, shown)


def _holds(seen: Seen, done: Done, person: RoomId) -> bool:
    """Whether what was published of somebody is what they publish."""
    there = seen.people.get(person)
    return there is not None and done.published.get(person) == there.tracks


def note(seen: Seen, news: RoomNews, *, ours: Collection[RoomId]) -> None:
    """Take in what happened in the server's room; `ours` are those in it who stand for us."""
    people = seen.people
    if news.destroyed:
        people.clear()
    for one in news.publishers:
        if one.id not in ours:
            people[one.id] = person_of(one)
    if news.joining is not None and news.joining.id not in ours:
        people.setdefault(news.joining.id, person_of(news.joining))
    if news.leaving is not None:
        people.pop(news.leaving, None)
    if news.unpublished is not None and (there := people.get(news.unpublished)) is not None:
        people[news.unpublished] = replace(there, tracks=())


def person_of(one: Participant) -> Person:
    """Return somebody as the server shows them."""
    return Person(one.display or "", tracks_of(one.streams))


def tracks_of(offered: list[Offered]) -> tuple[Track, ...]:
    """Return those of a publisher's tracks that other clusters can have: known codecs, and not disabled."""
    tracks = []
    for one in offered:
        known = _CODECS.get((one.codec or "").lower())
        if one.disabled or known is None:
            continue
        tracks.append(Track("video" if known.is_video else "audio", known, one.mindex, one.simulcast))
    return tuple(tracks)


def far_stream(stream: Stream, *, display: str) -> FarStream | None:
    """Return a stream of another cluster as it can be shown; None if it has no track of a known codec."""
    tracks = []
    for track in stream.media.tracks:
        codec = _CODECS.get(str((track.format or {}).get("codec", "")).lower())
        if codec is not None and codec.is_video == (track.type == "video"):
            tracks.append((track.type, codec))
    return FarStream(display, tuple(tracks)) if tracks else None


def grouped(tracks: tuple[Track, ...]) -> list[tuple[Track, ...]]:
    """Return them as streams, which have at most one track of each kind: the first ones belong together."""
    streams: list[list[Track]] = []
    for track in tracks:
        for stream in streams:
            if all(other.kind != track.kind for other in stream):
                stream.append(track)
                break
        else:
            streams.append([track])
    return [tuple(stream) for stream in streams]
