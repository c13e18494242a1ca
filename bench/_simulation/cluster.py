"""A conference cluster: rooms, who is in them, what it tells control, and how control talks to it.

Kinds
    own     reports everything; has a bridge of its own
    silent  the same, but says nothing of its links
    blind   says no more than that a room has come to life, and numbers nothing: nobody knows who is there
    served  reports rooms and people; agents make its links
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bench._simulation.kernel import Event, Host, HostGoneError, LateError
from bench._simulation.registry import Registry
from bench._simulation.replica import DatabaseAwayError
from bench._simulation.tables import Said, StaleEpochError, SupersededError
from causeway.backoff import Backoff
from lab.report_queue import ReportQueue, Resource

if TYPE_CHECKING:
    from bench._simulation.rows import Address
    from bench._simulation.wire import Bridge, LinkNews
    from bench._simulation.world import World
    from control.placement.facts import Point
    from lab.report_queue import Report

__all__ = ["Cluster", "ClusterKind", "RefusedError"]

ClusterKind: TypeAlias = Literal["own", "silent", "blind", "served"]
TTL: Final = 6.0
_CALL: Final = 2.0


class RefusedError(Exception):
    """The cluster answered that it will not do that."""


@dataclass(slots=True, kw_only=True)
class _Room:
    placement: int
    token: str | None = None
    people: dict[str, str] = field(default_factory=dict)


class Cluster:
    """One deployment, through all of its starts."""

    def __init__(self, world: World, name: str, kind: ClusterKind, region: str, location: Point) -> None:
        self._world = world
        self.name = name
        self.kind = kind
        self.region = region
        self.location = location
        self.linger = world.chance.choice((0.0, 2.0, 20.0))
        self.incarnation = 0
        self.host: Host | None = None
        self.bridge: Bridge | None = None
        self.rooms: dict[str, _Room] = {}
        self._epoch: int | None = None
        self._number = 0
        self._queue = ReportQueue(limit=1000)
        self._work = Event()
        self._register = Event()

    @property
    def signed(self) -> bool:
        """Whether control signs the tokens for it."""
        return self.ours and self._world.signed_tokens

    @property
    def ours(self) -> bool:
        """Whether it is of our own kind: takes signed tokens, knows placements."""
        return self.kind in {"own", "served"}

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.host is not None and self.host.alive

    def token_of(self, conference: str) -> str | None:
        """Return the token of a room that runs."""
        room = self.rooms.get(conference)
        return None if room is None else room.token

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start anew, knowing nothing."""
        self.incarnation += 1
        self.host = Host(self._world.kernel, f"{self.name}.{self.incarnation}")
        self._epoch, self._number, self.rooms = None, 0, {}
        self._queue, self._work, self._register = ReportQueue(limit=1000), Event(), Event()
        self._register.set()
        if self.kind != "served":
            self._start_bridge()
        self.host.spawn(self._registrar())
        self.host.spawn(self._beat())
        self.host.spawn(self._tell())

    def crash(self) -> None:
        """Stop without a word, with everybody in it."""
        if self.host is not None:
            self.host.kill()
        if self.bridge is not None:
            self.bridge.die()
        rooms, self.rooms = self.rooms, {}
        for conference in rooms:
            self._world.room_closed(self.name, conference)
        self._world.clients_lost(self.name)

    def restart_bridge(self) -> None:
        """Have the bridge die and come back at another address."""
        if self.bridge is not None and self.alive:
            lost = list(self.bridge.connections)
            self.bridge.die()
            for conference, peer in lost:
                self._link_news(conference, peer, "down")
            self._start_bridge()
            self._register.set()

    def _start_bridge(self) -> None:
        host = Host(self._world.kernel, f"{self.name}.bridge")
        self.bridge = self._world.wire.open(self, host, self._link_news)

    def _link_news(self, conference: str, peer: str, news: LinkNews) -> None:
        if self.kind == "own":
            if news == "up":
                self._state(Resource("link", conference, peer), "up")
            else:
                self._queue.remove(Resource("link", conference, peer))
                self._work.set()

    # --- people -------------------------------------------------------------------------------

    def join(self, conference: str, participant: str, user: str, placement: int) -> bool:
        """Let a client in who has a token for the room of that placement; False if there is none."""
        room = self.rooms.get(conference)
        if not self.alive:
            return False
        if self.signed and (room is None or room.placement < placement):
            self._queue.say_once(Resource("missing", conference), str(placement))
            self._work.set()
        if room is None or (self.signed and room.placement != placement):
            return False
        if room.token is None:
            room.token = f"{self.name}.{self.incarnation}.{self._world.kernel.next_number()}"
            self._state(Resource("room", conference), room.token)
        room.people[participant] = user
        if self.kind != "blind":
            self._state(Resource("participant", conference, participant), user)
        return True

    def leave(self, conference: str, participant: str) -> None:
        """Let a client go; a room closes when it was empty for a while."""
        room = self.rooms.get(conference)
        if room is None or room.people.pop(participant, None) is None:
            return
        self._queue.remove(Resource("participant", conference, participant))
        self._work.set()
        if not room.people:
            token = room.token
            self._world.kernel.later(self.linger, lambda: self._close_if_empty(conference, room, token))

    def _close_if_empty(self, conference: str, room: _Room, token: str | None) -> None:
        if self.rooms.get(conference) is room and room.token == token and not room.people:
            self._close(conference, room)

    def _close(self, conference: str, room: _Room) -> None:
        room.token = None
        for participant in list(room.people):
            self._world.client_lost(participant)
        room.people.clear()
        self._queue.close_room(conference)
        self._work.set()
        if self.bridge is not None:
            self.bridge.room_closed(conference)
        self._world.room_closed(self.name, conference)

    def _state(self, resource: Resource, *detail: str) -> None:
        self._queue.put(resource, *detail)
        self._work.set()

    # --- what control may ask -------------------------------------------------------------------

    async def create_room(self, conference: str, placement: int) -> None:
        """Make the room; one of an earlier placement is closed first. Raises RefusedError."""
        room = self.rooms.get(conference)
        if room is not None and room.placement > placement:
            raise RefusedError("the room is of a later placement")
        if room is not None and room.placement < placement:
            await self.delete_room(conference)
            room = None
        if room is None:
            self.rooms[conference] = _Room(placement=placement)

    async def delete_room(self, conference: str, placement: int | None = None) -> None:
        """Remove the room, if it is of no later placement; none is as good."""
        room = self.rooms.get(conference)
        if room is not None and (placement is None or room.placement <= placement):
            if room.token is not None:
                self._close(conference, room)
            del self.rooms[conference]

    async def list_rooms(self) -> dict[str, int]:
        """Say which rooms there are, and of which placements."""
        return {conference: room.placement for conference, room in self.rooms.items()}

    async def get_bridges(self) -> Address:
        """Say where the bridge listens. Raises RefusedError."""
        if self.bridge is None or not self.bridge.host.alive:
            raise RefusedError("there is no bridge")
        return self.bridge.address

    async def start_cascade(self, conference: str, token: str, peer: str, address: Address) -> None:
        """Have the bridge dial. Raises RefusedError."""
        if self.bridge is None or self.token_of(conference) is None:
            raise RefusedError("the room does not run")
        self.bridge.start(conference, peer, token, address)
        link = Resource("link", conference, peer)
        if self._queue.states(link):
            self._state(link, "up")

    async def stop_cascade(self, conference: str, peer: str) -> None:
        """Have the bridge hang up."""
        if self.bridge is not None:
            self.bridge.stop(conference, peer)

    # --- what it tells control --------------------------------------------------------------------

    async def _registrar(self) -> None:
        backoff = self._backoff()
        while True:
            await self._register.wait()
            self._register.clear()
            former, bridge = self._epoch, None if self.bridge is None else self.bridge.address
            register = partial(
                Registry.register,
                cluster=self.name,
                number=self._next_number(),
                incarnation=self.incarnation,
                bridges=bridge,
                reports_links=self.kind == "own",
                knows_participants=self.kind != "blind",
                region=self.region,
                location=self.location,
                ttl=TTL,
            )
            try:
                epoch = await self._world.ask_control(
                    self.name, register, timeout=_CALL, in_time=self.kind == "blind"
                )
            except (LateError, HostGoneError, DatabaseAwayError, SupersededError):
                self._register.set()
                await self._world.kernel.sleep(backoff.next_delay())
                continue
            backoff.reset()
            self._epoch = epoch
            if former is not None and former != epoch:
                self._queue.tell_anew()
            self._work.set()

    def _forgotten(self) -> None:
        self._queue.tell_anew()
        self._register.set()

    async def _beat(self) -> None:
        while True:
            await self._world.kernel.sleep(TTL / 4)
            epoch = self._epoch
            if epoch is None:
                continue
            try:
                await self._world.ask_control(
                    self.name,
                    lambda registry, epoch=epoch: registry.heartbeat(self.name, epoch=epoch, ttl=TTL),  # type: ignore[misc]  # bound now
                    timeout=1.0,
                )
            except StaleEpochError:
                if epoch == self._epoch:
                    self._forgotten()
            except (LateError, HostGoneError, DatabaseAwayError):
                continue

    async def _tell(self) -> None:
        backoff = self._backoff()
        while True:
            report, epoch = self._queue.next(), self._epoch
            if report is None or epoch is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                await self._tell_one(report, epoch)
            except StaleEpochError:
                if epoch == self._epoch:
                    self._forgotten()
                await self._world.kernel.sleep(backoff.next_delay())
            except (LateError, HostGoneError, DatabaseAwayError, SupersededError):
                await self._world.kernel.sleep(backoff.next_delay())
            except KeyError:  # no such conference: it will not be taken however often it is told
                self._queue.taken(report)
                if self.ours:  # others know nothing of us
                    await self.delete_room(report.resource.room)
            else:
                self._queue.taken(report)
                backoff.reset()

    async def _tell_one(self, report: Report, epoch: int) -> None:
        said = Said(self.name, epoch, self._next_number())
        room, who, detail = report.resource.room, report.resource.name, report.detail

        def tell(registry: Registry) -> None:
            match report.resource.kind, detail:
                case "room", None:
                    registry.room_closed(said, room)
                case "room", (token,):
                    registry.room_opened(said, room, token)
                case "participant", None:
                    registry.participant_left(said, room, who)
                case "participant", (user,):
                    registry.participant_joined(said, room, who, user)
                case "missing", (placement,):
                    registry.room_wanted(said, room, int(placement))
                case _:
                    registry.link_seen(said, room, who, "down" if detail is None else "up")

        await self._world.ask_control(self.name, tell, timeout=_CALL, in_time=said.number is None)

    def _next_number(self) -> int | None:
        """Return the number of the next request; who says so little numbers nothing."""
        if self.kind == "blind":
            return None
        self._number += 1
        return self._number

    def _backoff(self) -> Backoff:
        return Backoff(base=0.2, cap=2.0, uniform=self._world.chance.uniform)
