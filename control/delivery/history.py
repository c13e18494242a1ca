"""A conference rebuilt from its events: who was where, and what served it. Pure.

Folding is forgiving: what an event takes away need not be there, what it adds may be there already, and kinds
that are not known change nothing. So a log that begins in the middle gives what can be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import msgspec

from causeway.api import (
    ConferenceState,
    LinkStanding,
    ParticipantView,
    PlacementStanding,
    StreamView,
    Track,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from causeway.api import ConferenceEvent

__all__ = ["History"]

_SETTINGS: Final[dict[str, Any]] = {
    "type": "",
    "template_version": 0,
    "metadata": {},
    "locked": False,
    "participant_limit": -1,
    "empty_ttl": -1,
}
"""What a conference is, by the names of the fields of its events and its state."""


class History:
    """What is known of a conference after the events so far; `apply` them in the order of their numbers."""

    def __init__(self, conference: str, start: ConferenceState | None = None) -> None:
        """Begin with nothing, or with what was known after an earlier event."""
        self.conference = conference
        self.seq = 0
        self.at: datetime | None = None
        self._state: Literal["active", "ending", "ended"] = "ended"
        self._settings = dict(_SETTINGS)
        self._placements: dict[str, PlacementStanding] = {}
        self._links: dict[tuple[str, str], LinkStanding] = {}
        self._participants: dict[tuple[str, str], ParticipantView] = {}
        self._streams: dict[tuple[str, str], StreamView] = {}
        if start is not None:
            self._resume(start)

    @property
    def over(self) -> bool:
        """Whether there is no such conference: it has ended, or never was."""
        return self._state == "ended"

    def apply_all(self, events: Iterable[ConferenceEvent]) -> None:
        """Apply events, in order."""
        for event in events:
            self.apply(event)

    def apply(self, event: ConferenceEvent) -> None:
        """Take in the next event; one that was taken in already changes nothing."""
        if event.seq <= self.seq:
            return
        if self.at is None:
            self._state = "active"  # whatever the first one says of it
        self.seq, self.at = event.seq, event.at
        change = self._CHANGES.get(event.kind)
        if change is not None:
            change(self, event)

    def state(self) -> ConferenceState | None:
        """Return what is known; None: nothing."""
        if self.at is None:
            return None
        return ConferenceState(
            conference=self.conference,
            seq=self.seq,
            at=self.at,
            state=self._state,
            **self._settings,
            placements=sorted(self._placements.values(), key=lambda each: each.ordinal),
            links=[self._links[key] for key in sorted(self._links)],
            participants=sorted(
                self._participants.values(), key=lambda each: (each.joined_at, each.cluster, each.id)
            ),
            streams=[self._streams[key] for key in sorted(self._streams)],
        )

    def _resume(self, start: ConferenceState) -> None:
        self.seq, self.at, self._state = start.seq, start.at, start.state
        self._settings = {name: getattr(start, name) for name in _SETTINGS}
        self._placements = {each.cluster: each for each in start.placements}
        self._links = {(each.dialer, each.listener): each for each in start.links}
        self._participants = {(each.cluster, each.id): each for each in start.participants}
        self._streams = {(each.cluster, each.id): each for each in start.streams}

    # --- what each kind of event changes ------------------------------------------------------

    def _begin(self, event: ConferenceEvent) -> None:
        self._empty()
        self._state = "active"
        self._settings = dict(_SETTINGS)
        self._set(event)

    def _set(self, event: ConferenceEvent) -> None:
        self._settings |= {name: event.body[name] for name in _SETTINGS if name in event.body}

    def _close(self, _event: ConferenceEvent) -> None:
        self._state = "ending"

    def _end(self, _event: ConferenceEvent) -> None:
        self._empty()
        self._state = "ended"

    def _empty(self) -> None:
        for things in (self._placements, self._links, self._participants, self._streams):
            things.clear()

    def _place(self, event: ConferenceEvent) -> None:
        cluster = _name(event, "cluster")
        self._placements[cluster] = PlacementStanding(
            cluster=cluster,
            region=event.body.get("region"),
            ordinal=event.body.get("ordinal", 0),
            state=_last_word(event),
            since=event.at,
        )

    def _unplace(self, event: ConferenceEvent) -> None:
        self._placements.pop(_name(event, "cluster"), None)

    def _link(self, event: ConferenceEvent) -> None:
        dialer, listener = _name(event, "dialer"), _name(event, "listener")
        self._links[dialer, listener] = LinkStanding(
            dialer=dialer, listener=listener, state=_last_word(event), since=event.at
        )

    def _unlink(self, event: ConferenceEvent) -> None:
        self._links.pop((_name(event, "dialer"), _name(event, "listener")), None)

    def _come(self, event: ConferenceEvent) -> None:
        cluster, id_ = _name(event, "cluster"), _name(event, "participant")
        before = self._participants.get((cluster, id_))
        self._participants[cluster, id_] = ParticipantView(
            id=id_,
            user=_name(event, "user"),
            role=_name(event, "role"),
            cluster=cluster,
            joined_at=event.at if before is None else before.joined_at,
        )

    def _leave(self, event: ConferenceEvent) -> None:
        self._participants.pop((_name(event, "cluster"), _name(event, "participant")), None)

    def _publish(self, event: ConferenceEvent) -> None:
        cluster, id_ = _name(event, "cluster"), _name(event, "stream")
        before = self._streams.get((cluster, id_))
        self._streams[cluster, id_] = StreamView(
            id=id_,
            participant=event.body.get("participant"),
            cluster=cluster,
            tracks=msgspec.convert(event.body.get("tracks", []), list[Track]),
            published_at=event.at if before is None else before.published_at,
        )

    def _unpublish(self, event: ConferenceEvent) -> None:
        self._streams.pop((_name(event, "cluster"), _name(event, "stream")), None)

    _CHANGES: ClassVar[dict[str, Callable[[History, ConferenceEvent], None]]] = {
        "conference.created": _begin,
        "conference.changed": _set,
        "conference.ending": _close,
        "conference.ended": _end,
        "placement.wanted": _place,
        "placement.ready": _place,
        "placement.lost": _place,
        "placement.removed": _unplace,
        "link.wanted": _link,
        "link.requested": _link,
        "link.up": _link,
        "link.down": _link,
        "link.removed": _unlink,
        "participant.joined": _come,
        "participant.left": _leave,
        "stream.added": _publish,
        "stream.changed": _publish,
        "stream.removed": _unpublish,
    }
    """participant.moved changes nothing: who is told to move has left before, and joins elsewhere."""


def _name(event: ConferenceEvent, field: str) -> str:
    return str(event.body.get(field, ""))


def _last_word(event: ConferenceEvent) -> str:
    return event.kind.rpartition(".")[2]
