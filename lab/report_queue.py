"""What control has to be told, coalesced: for each thing only its latest state, in an order that makes sense.

Pure. Everything reported is a statement about one resource (it is so, it is no more), so repeating one does
no harm and only the last counts. Statements that control has taken are kept as long as they are true, to be
told anew to a control that has forgotten them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec import Struct

__all__ = ["Rank", "Report", "ReportQueue", "Resource"]


class Rank(IntEnum):
    """What goes first: a room before those in it, those who left before a room that may be a new one.

    That a room closed is told even if it has opened again meanwhile: everybody in it is another one now.
    """

    CAPACITY = 0
    DEPARTURE = 1
    CLOSING = 2
    MISSING = 3
    ROOM = 4
    ARRIVAL = 5
    STREAM = 6
    LINK = 7


class Resource(Struct, frozen=True):
    """A module, or a room, or a participant, stream or linked cluster (`name`) of a room.

    Or what is `missing`: a room that clients have tokens for.
    """

    kind: str
    room: str = ""
    name: str = ""


class Report(Struct, frozen=True):
    """A statement: `detail` is what the resource's state is, None when it is no more."""

    resource: Resource
    detail: tuple[str, ...] | None

    def __repr__(self) -> str:  # details may be tokens
        return f"Report({self.resource!r}, {'gone' if self.detail is None else '…'})"


_RANKS: Final = {
    "capacity": (Rank.CAPACITY, Rank.CAPACITY),
    "room": (Rank.ROOM, Rank.CLOSING),
    "participant": (Rank.ARRIVAL, Rank.DEPARTURE),
    "stream": (Rank.STREAM, Rank.DEPARTURE),
    "link": (Rank.LINK, Rank.LINK),
    "missing": (Rank.MISSING, Rank.MISSING),
}


class ReportQueue:
    """The statements that control has not taken, and those that are true.

    There are as many of the latter as there are things; of takings-back, at most `limit` wait.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._pending: tuple[dict[Resource, Report], ...] = tuple({} for _ in Rank)
        self._true: dict[Resource, Report] = {}
        self.overflowed = False
        """Whether statements had to be left out: only a fresh start can make control's picture right."""

    def __len__(self) -> int:
        return sum(len(pending) for pending in self._pending)

    @property
    def true(self) -> list[Report]:
        """Everything that is so, whether or not control knows."""
        return list(self._true.values())

    def states(self, resource: Resource) -> bool:
        """Say whether `resource` is stated to be there."""
        return resource in self._true

    def put(self, resource: Resource, *detail: str) -> None:
        """State that `resource` is there, with this detail."""
        report = Report(resource, detail)
        self._true[resource] = report
        self._add(report)

    def say_once(self, resource: Resource, *detail: str) -> None:
        """Have this told, and then forget it. Left out while too much waits: whoever needs it comes again."""
        if len(self) < self._limit:
            self._add(Report(resource, detail))

    def remove(self, resource: Resource) -> None:
        """State that `resource` is gone; what was never stated needs no taking back."""
        if self._true.pop(resource, None) is not None:
            self._add(Report(resource, None))

    def close_room(self, room: str) -> None:
        """State that a room is gone; nothing about what was in it needs to be told any more."""
        for resource in [resource for resource in self._true if resource.room == room]:
            if resource.kind != "room":
                del self._true[resource]
        for pending in self._pending:
            for resource in [resource for resource in pending if resource.room == room]:
                del pending[resource]
        self.remove(Resource("room", room))

    def next(self) -> Report | None:
        """Return the statement to be told now, None when there is none. It stays until it is `taken`."""
        return next((report for pending in self._pending for report in pending.values()), None)

    def taken(self, report: Report) -> None:
        """Forget a statement that control has taken, or will never take, unless a newer one replaced it."""
        for pending in self._pending:
            if pending.get(report.resource) is report:
                del pending[report.resource]

    def tell_anew(self) -> None:
        """Queue everything that is so; takings-back that wait go on waiting."""
        for report in self._true.values():
            # Another one: that of before may be under way, and its end says nothing of this one.
            self._add(Report(report.resource, report.detail))

    def start_afresh(self) -> None:
        """Forget what waits, and queue what is so: control has been told that all it knew is void."""
        for pending in self._pending:
            pending.clear()
        self.overflowed = False
        for report in self._true.values():
            self._add(report)

    def _add(self, report: Report) -> None:
        for rank, pending in zip(Rank, self._pending, strict=True):
            if rank is not Rank.CLOSING or report.detail is None:
                pending.pop(report.resource, None)
        there, gone = _RANKS[report.resource.kind]
        if report.detail is not None:
            self._pending[there][report.resource] = report
        elif self._gone() < self._limit:
            self._pending[gone][report.resource] = report
        else:
            self.overflowed = True

    def _gone(self) -> int:
        if len(self) < self._limit:
            return 0  # few enough in any case: no need to count
        return sum(report.detail is None for pending in self._pending for report in pending.values())
