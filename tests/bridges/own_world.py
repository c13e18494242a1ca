"""Several bridges with their cores only: connections are queues of bytes, and time is a number.

Every connection keeps the bytes of each lane apart, in either direction; which lane goes on, and how the
bytes are cut, is decided by whoever calls `step`. What each bridge's conference node was told is kept and
checked: the events of an origin have to be the ones that it published, each once, in order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridges.event.own.conversation import Conversation, Role
from bridges.event.own.outputs import (
    ChannelClosed,
    ChannelOpened,
    Diverged,
    Greeted,
    OpenRequested,
    Output,
    Refused,
    Repaired,
    Told,
    Vanished,
    Violated,
)
from bridges.event.own.picture import Picture
from bridges.event.own.relay import Relay
from bridges.event.own.settings import OwnWireSettings

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "the room's token"
ROOM = "standup"


def participant(id_: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "user": f"user of {id_}",
        "role": "presenter",
        "portal": "portal-1",
        "origin": {},
        **more,
    }


def stream(id_: str, owner: str = "p1", *, muted: bool = False) -> dict[str, Any]:
    status = "inactive" if muted else "active"
    track = {"type": "audio", "source": "mic", "format": {"codec": "opus"}, "status": status}
    return {
        "id": id_,
        "type": "forward",
        "media": {"tracks": [{"id": f"{id_}-a", **track}]},
        "info": {"owner": owner, "type": "webrtc", "inViews": [], "attributes": None},
    }


def empty_picture() -> Picture:
    return Picture(max_entries=10_000, max_bytes=1 << 24, max_entry_bytes=1 << 20)


@dataclass
class NodeView:
    """What a conference node has been told of the others, and what it makes of it."""

    settings: OwnWireSettings
    pictures: dict[str, Picture] = field(default_factory=dict)
    log: list[tuple[str, int, int, str, Any]] = field(default_factory=list)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    consuming: bool = True

    def take(self, told: Told) -> None:
        self.log.append((told.origin, told.at.incarnation, told.at.seq, told.type, told.data))
        if told.type == "initialize":
            assert told.origin not in self.pictures, "initialized twice"
            picture = self.pictures[told.origin] = self._picture()
            for id_, value in told.data["participants"].items():
                picture.put_participant(id_, value)
            for id_, value in told.data["streams"].items():
                picture.put_stream(id_, value)
        else:
            self.pictures[told.origin].apply(told.type, told.data)
        self.waiting.append(told.consumed)
        if self.consuming:
            self.consume()

    def consume(self) -> None:
        waiting, self.waiting = self.waiting, []
        for consumed in waiting:
            consumed()

    def vanish(self, origin: str) -> None:
        del self.pictures[origin]

    def events_of(self, origin: str, kind: str) -> list[Any]:
        return [data for of, _, _, type_, data in self.log if of == origin and type_ == kind]

    def _picture(self) -> Picture:
        return empty_picture()


class Bridge:
    """One cluster's bridge with its node."""

    def __init__(self, world: World, name: str, *, relaying: bool, incarnation: int) -> None:
        self.world = world
        self.name = name
        self.relaying = relaying
        self.settings = world.settings
        self.relays: dict[str, Relay] = {}
        self.views: dict[str, NodeView] = {}
        self.outputs: list[Output] = []
        self.incarnation = incarnation
        self.room(ROOM)

    def room(self, room: str) -> Relay:
        if room not in self.relays:
            self.relays[room] = Relay(
                room,
                cluster=self.name,
                incarnation=self.incarnation,
                relaying=self.relaying,
                settings=self.settings,
            )
            self.views[room] = NodeView(self.settings)
        return self.relays[room]

    @property
    def relay(self) -> Relay:
        return self.relays[ROOM]

    @property
    def view(self) -> NodeView:
        return self.views[ROOM]

    def carry_out(self, outputs: list[Output]) -> None:
        self.outputs += [one for one in outputs if not isinstance(one, Told)]
        for output in outputs:
            if isinstance(output, Told):
                self.views[output.room].take(output)
            elif isinstance(output, Vanished):
                self.views[output.room].vanish(output.origin)

    def of(self, kind: type[Any]) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]


class End:
    """One bridge's end of a connection."""

    def __init__(self, bridge: Bridge, role: Role, peer: str | None, connection: Connection) -> None:
        self.bridge = bridge
        self.connection = connection
        self.woken = False
        self.outputs: list[Output] = []
        self.opened: dict[str, int] = {}
        self.conversation = Conversation(
            role,
            cluster=bridge.name,
            peer=peer,
            settings=bridge.settings,
            now=bridge.world.now,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.woken = True

    def carry_out(self, outputs: list[Output]) -> None:
        self.outputs += outputs
        self.bridge.carry_out(outputs)
        now = self.bridge.world.now
        for output in outputs:
            match output:
                case OpenRequested(channel=channel, room=room, token=token):
                    if token == TOKEN:
                        relay = self.bridge.room(room)
                        self.carry_out(self.conversation.accept(channel, relay, now))
                    else:
                        self.carry_out(self.conversation.close_channel(channel, 0x210, "wrong token", now))
                case Greeted() if self.conversation.role is Role.DIALER:
                    for room in self.connection.rooms:
                        channel = self.conversation.open(self.bridge.room(room), self.connection.token, now)
                        self.opened[room] = channel
                case Violated():
                    self.connection.broken = True
                case ChannelClosed() | ChannelOpened() | Diverged() | Repaired() | Refused():
                    pass


class Connection:
    """Bytes on their way between two ends, lane by lane."""

    def __init__(
        self, world: World, dialer: Bridge, listener: Bridge, *, rooms: tuple[str, ...], token: str
    ) -> None:
        self.world = world
        self.rooms = rooms
        self.token = token
        self.broken = False
        self.ends = (
            End(dialer, Role.DIALER, listener.name, self),
            End(listener, Role.LISTENER, None, self),
        )
        self.flying: dict[tuple[int, int], bytearray] = defaultdict(bytearray)

    def flush(self) -> None:
        """Take what the ends want to send, as far as the window of each lane allows."""
        for side, end in enumerate(self.ends):
            end.woken = False
            for lane in end.conversation.lanes_to_send():
                flying = self.flying[side, lane]
                flying += end.conversation.data_to_send(lane, self.world.window - len(flying), self.world.now)

    def ways(self) -> list[tuple[int, int]]:
        """Return what has bytes on the way: (sending side, lane)."""
        return [way for way, data in self.flying.items() if data]

    def step(self, way: tuple[int, int], size: int) -> None:
        """Let some bytes of a lane arrive."""
        data = bytes(self.flying[way][:size])
        del self.flying[way][:size]
        side, lane = way
        end = self.ends[1 - side]
        end.carry_out(end.conversation.receive(lane, data, self.world.now))

    def cut(self) -> None:
        """Break, with everything that is on the way."""
        self.broken = True
        self.flying.clear()
        for end in self.ends:
            end.carry_out(end.conversation.lost("cut", self.world.now))


class World:
    """All of it."""

    def __init__(self, settings: OwnWireSettings | None = None, *, window: int = 1 << 16) -> None:
        self.settings = settings or OwnWireSettings()
        self.window = window
        self.now = 1000.0
        self.bridges: dict[str, Bridge] = {}
        self.connections: list[Connection] = []
        self._incarnations = 0

    def bridge(self, name: str, *, relaying: bool = True, incarnation: int | None = None) -> Bridge:
        self._incarnations += 1
        start = self._incarnations if incarnation is None else incarnation
        bridge = self.bridges[name] = Bridge(self, name, relaying=relaying, incarnation=start)
        bridge.relay.attach({}, {})
        return bridge

    def connect(
        self, dialer: str, listener: str, *, rooms: tuple[str, ...] = (ROOM,), token: str = TOKEN
    ) -> Connection:
        connection = Connection(self, self.bridges[dialer], self.bridges[listener], rooms=rooms, token=token)
        self.connections.append(connection)
        return connection

    def flush(self) -> None:
        for connection in self.connections:
            if connection.broken:
                for end in connection.ends:
                    end.carry_out(end.conversation.lost("the other end gave it up", self.now))
                connection.flying.clear()
        self.connections = [connection for connection in self.connections if not connection.broken]
        for connection in self.connections:
            connection.flush()

    def settle(self, *, limit: int = 100_000) -> None:
        """Let everything arrive that is on the way."""
        for _ in range(limit):
            self.flush()
            ways = [(connection, way) for connection in self.connections for way in connection.ways()]
            if not ways:
                return
            for connection, way in ways:
                connection.step(way, 1 << 20)
        raise AssertionError("it does not come to rest")

    def sleep(self, seconds: float, *, step: float = 0.5) -> None:
        """Let time pass, with everything arriving in between."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.poll()
            self.settle()

    def poll(self) -> None:
        for connection in list(self.connections):
            for one in connection.ends:
                one.carry_out(one.conversation.poll(self.now))
        for bridge in self.bridges.values():
            for relay in bridge.relays.values():
                bridge.carry_out(relay.poll(self.now))

    def check(self, room: str = ROOM) -> None:
        """Check that every bridge in the room has what every other one has, and its node too."""
        inside = [bridge for bridge in self.bridges.values() if room in bridge.relays]
        truth = {bridge.name: bridge.relays[room].origin(bridge.name) for bridge in inside}
        for bridge in inside:
            for name, own in truth.items():
                assert own is not None
                seen = bridge.relays[room].origin(name)
                assert seen is not None, f"{bridge.name} knows nothing of {name}"
                assert seen.log.end == own.log.end, (bridge.name, name)
                assert seen.picture.digest == own.picture.digest, (bridge.name, name)
                if name != bridge.name:
                    shown = bridge.views[room].pictures[name]
                    assert shown.digest == own.picture.digest, (bridge.name, name, shown, own.picture)


def exactly_once(view: NodeView, origin: str) -> None:
    """Check that events of an origin came in order and none twice, within each of its starts."""
    last: dict[int, int] = {}
    for of, incarnation, seq, type_, _ in view.log:
        if of == origin and type_ == "onAudioActiveness":
            assert seq > last.get(incarnation, 0), f"{origin} {seq} after {last[incarnation]}"
            last[incarnation] = seq


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
