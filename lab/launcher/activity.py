"""What crossed a region's bridges, added up from the answers to `/lab/stats`. Pure.

A bridge counts for each link and track since that was set up, and starts at zero when its process does; here
only growth is added, so totals never fall.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Activity"]


class _Link(msgspec.Struct):
    peer: str = ""
    room: str = ""
    role: str = ""
    events_in: int = 0
    events_out: int = 0


class _Track(msgspec.Struct):
    id: str = ""
    peer: str = ""
    room: str = ""
    direction: str = ""
    frames: int = 0
    bytes: int = 0
    dropped_frames: int = 0


class _Figures(msgspec.Struct):
    links: list[_Link] = []
    tracks: list[_Track] = []


class _Bridge(msgspec.Struct):
    id: str
    stats: _Figures | None = None


class _Person(msgspec.Struct):
    cascading: bool = False


class _Room(msgspec.Struct):
    room: str
    participants: list[_Person] = []


class _Stats(msgspec.Struct):
    rooms: list[_Room] = []
    bridges: list[_Bridge] = []


class Activity:
    """Totals of one region's bridges since the laboratory began."""

    def __init__(self) -> None:
        self.events = 0
        """Conference events, both directions."""
        self.frames = 0
        """Media frames, both directions."""
        self.bytes = 0
        """Of media frames, both directions."""
        self.dropped = 0
        """Frames dropped by the media bridge."""
        self.local = 0
        """Participants who are here."""
        self.remote = 0
        """Participants of other clusters who are shown here."""
        self._seen: dict[tuple[str, ...], int] = {}

    def follow(self, answer: Any) -> None:
        """Take a cluster's answer to `/lab/stats`: add what grew since the last; skip what is none."""
        try:
            stats = msgspec.convert(answer, _Stats)
        except msgspec.ValidationError:
            return
        people = [person for room in stats.rooms for person in room.participants]
        self.remote = sum(person.cascading for person in people)
        self.local = len(people) - self.remote
        present: dict[tuple[str, ...], int] = {}
        for bridge in stats.bridges:
            figures = bridge.stats or _Figures()
            for link in figures.links:
                key = (bridge.id, link.peer, link.room, link.role)
                self.events += self._growth((*key, "in"), link.events_in, present)
                self.events += self._growth((*key, "out"), link.events_out, present)
            for track in figures.tracks:
                name = (bridge.id, track.peer, track.room, track.direction, track.id)
                self.frames += self._growth((*name, "frames"), track.frames, present)
                self.bytes += self._growth((*name, "bytes"), track.bytes, present)
                self.dropped += self._growth((*name, "dropped"), track.dropped_frames, present)
        self._seen = present

    def _growth(self, counter: tuple[str, ...], value: int, present: dict[tuple[str, ...], int]) -> int:
        before = self._seen.get(counter, 0)
        present[counter] = value
        return value - before if value >= before else value
