"""The rooms of this cluster: which exist, which are running on the conference node, and who is told what.

A room exists from `create` on; it runs, with a node id and a token, from its first join until some time after
its last local participant has left. Whatever happens in a running room is handed, in order, to every
listener. No IO: time is an argument.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from lab.room import Room
from lab.room_options import RoomOptions, RoomRecord
from lab.room_outputs import Output
from lab.room_rules import RoomError, RoomRules

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RoomClosed", "RoomNews", "RoomOpened", "Rooms", "RunningRoom"]


class RoomOpened(Struct, frozen=True):
    """The room runs now; bridges of other clusters must present `token`."""

    token: str

    def __repr__(self) -> str:
        return "RoomOpened()"


class RoomClosed(Struct, frozen=True):
    """The room runs no more; the ends of everything in it came before."""


RoomNews = Output | RoomOpened | RoomClosed
_TOKEN_BYTES: Final = 32


class RunningRoom:
    """A room on the conference node, under the RPC id `node_id`."""

    def __init__(self, room: Room, node_id: str) -> None:
        self.room = room
        self.node_id = node_id
        self.empty_since: float | None = None


class Rooms:
    """Every room of cluster `cluster`; `worker_id` is the conference worker's, of which node ids are made."""

    def __init__(
        self,
        *,
        cluster: str,
        worker_id: str,
        max_rooms: int = 1000,
        max_streams_per_participant: int = 16,
    ) -> None:
        self.cluster = cluster
        self.worker_id = worker_id
        self.listeners: list[Callable[[RunningRoom, RoomNews], None]] = []
        """Called in this order with everything that happens; must not call back into the rooms."""
        self.on_created: list[Callable[[str], None]] = []
        """Called with a room's id when it has been made, whether or not anybody ever joins it."""
        self.on_deleted: list[Callable[[str], None]] = []
        """Called with it when it exists no more."""
        self._max_rooms = max_rooms
        self._max_streams = max_streams_per_participant
        self._records: dict[str, RoomRecord] = {}
        self._running: dict[str, RunningRoom] = {}
        self._by_node: dict[str, RunningRoom] = {}
        self._count = 0

    # --- rooms that exist -------------------------------------------------------------------------

    @property
    def records(self) -> list[RoomRecord]:
        """Every room, in order of creation."""
        return list(self._records.values())

    def record(self, room_id: str) -> RoomRecord:
        """Return a room; raises RoomError `no-such-room`."""
        record = self._records.get(room_id)
        if record is None:
            raise RoomError("no-such-room", "there is no such room")
        return record

    def create(self, name: str, options: RoomOptions) -> RoomRecord:
        """Return a new room, or the one that has this id already. Raises RoomError `too-many-rooms`.

        A room of an earlier placement is what a lost order to delete it has left behind: it is closed and
        made anew. An order for an earlier placement than the room's comes too late: `room-is-newer`.
        """
        room_id = options.id or secrets.token_hex(12)
        if (known := self._records.get(room_id)) is not None:
            asked, there = options.placement_epoch, known.options.placement_epoch
            if asked is None or asked == there:
                return known
            if there is not None and asked < there:
                raise RoomError("room-is-newer", "the room is of a later placement")
            self.delete(room_id)
        if len(self._records) >= self._max_rooms:
            raise RoomError("too-many-rooms", f"there are {self._max_rooms} rooms already")
        record = self._records[room_id] = RoomRecord(id=room_id, name=name, options=options)
        for created in self.on_created:
            created(room_id)
        return record

    def update(self, room_id: str, name: str | None, options: RoomOptions) -> RoomRecord:
        """Change a room's options, also while it runs. Raises RoomError `no-such-room`."""
        known = self.record(room_id)
        options = replace(options, placement_epoch=known.options.placement_epoch)
        record = RoomRecord(id=room_id, name=name or known.name, options=options)
        self._records[room_id] = record
        if room_id in self._running:
            self._running[room_id].room.rules = self._rules(record)
        return record

    def delete(self, room_id: str, *, placement_epoch: int | None = None) -> None:
        """Remove a room with everybody in it. Raises RoomError `no-such-room`.

        With a placement's epoch only one that was made for it or an earlier one: an order that comes late
        must not hit the room that has been made since.
        """
        made_for = self.record(room_id).options.placement_epoch
        if placement_epoch is not None and made_for is not None and made_for > placement_epoch:
            raise RoomError("no-such-room", "the room there is of a later placement")
        self._close(room_id)
        del self._records[room_id]
        for deleted in self.on_deleted:
            deleted(room_id)

    # --- rooms that run ---------------------------------------------------------------------------

    @property
    def running(self) -> list[RunningRoom]:
        """Every running room."""
        return list(self._running.values())

    def get_running(self, room_id: str) -> RunningRoom | None:
        """Return a room if it runs."""
        return self._running.get(room_id)

    def by_node(self, node_id: str) -> RunningRoom | None:
        """Return the running room behind an RPC id."""
        return self._by_node.get(node_id)

    def join(self, room_id: str, *, user: str, role: str, portal: str, participant: str | None = None) -> str:
        """Let somebody join, starting the room if need be; return the participant's id, drawn unless given.

        Raises RoomError `no-such-room` and those of Room.join.
        """
        record = self.record(room_id)
        running = self._running.get(room_id)
        starts = running is None
        if running is None:
            token = secrets.token_hex(_TOKEN_BYTES)
            room = Room(room_id, cluster=self.cluster, token=token, rules=self._rules(record))
            running = RunningRoom(room, f"{self.worker_id}_{self._count}")
        participant = participant or secrets.token_hex(10)
        outputs = running.room.join(participant, user=user, role=role, portal=portal)
        if starts:
            self._count += 1
            self._running[room_id] = self._by_node[running.node_id] = running
            self._tell(running, RoomOpened(running.room.token))
        running.empty_since = None
        for output in outputs:
            self._tell(running, output)
        return participant

    def act(self, room_id: str, action: Callable[[Room], list[Output]]) -> None:
        """Do something to a running room, and tell what came of it. Raises RoomError."""
        running = self._running.get(room_id)
        if running is None:
            raise RoomError("no-such-room", "the room is not running")
        for output in action(running.room):
            self._tell(running, output)

    def bridge_lost(self, bridge: str) -> None:
        """Remove from every room what came through a bridge that is gone."""
        for room_id in list(self._running):
            self.act(room_id, lambda room: room.bridge_lost(bridge))

    def close_empty(self, now: float, *, linger: float) -> None:
        """Close rooms without a local participant for `linger` seconds; `now` is any monotonic time."""
        for room_id, running in list(self._running.items()):
            if running.room.local_participants:
                running.empty_since = None
            elif running.empty_since is None:
                running.empty_since = now
            elif now - running.empty_since >= linger:
                self._close(room_id)

    def close_all(self) -> None:
        """Close every running room."""
        for room_id in list(self._running):
            self._close(room_id)

    def _close(self, room_id: str) -> None:
        running = self._running.get(room_id)
        if running is None:
            return
        self.act(room_id, Room.close)
        del self._running[room_id], self._by_node[running.node_id]
        self._tell(running, RoomClosed())

    def _tell(self, running: RunningRoom, news: RoomNews) -> None:
        for listener in self.listeners:
            listener(running, news)

    def _rules(self, record: RoomRecord) -> RoomRules:
        return record.rules(max_streams_per_participant=self._max_streams)
