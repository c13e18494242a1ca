"""A replica of control: claims conferences, plans with the real plan, and carries out what that asks for.

Follows control.cascade.reconcile and hands: one claim per conference, one action per subject at a time, every
outcome noted under the condition that nothing moved on meanwhile. It may be killed or frozen between any two
of its steps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from bench._simulation.hands import FailedError, Hands
from bench._simulation.kernel import Event, Host, HostGoneError, LateError
from bench._simulation.network import Patience
from bench._simulation.view import moment, seconds, view_of
from causeway.backoff import Backoff
from control.cascade.breaker import Breaker
from control.cascade.plan import next_look, plan
from control.cascade.view import (
    AssignAgent,
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    MoveClients,
    RemoveRoom,
    StartCascade,
    StopCascade,
    UnassignAgent,
)
from control.cascade_settings import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench._simulation.cluster import Cluster
    from bench._simulation.registry import Registry
    from bench._simulation.world import World
    from control.cascade.view import Action, View

__all__ = ["DatabaseAwayError", "Replica"]

T = TypeVar("T")
Subject: TypeAlias = tuple[str, ...]
_TTL: Final = 6.0
_POLL: Final = 2.0
_CALL: Final = 5.0
_PUT_OFF: Final = 0.2
_ROOMS: Final = 15.0
_ROOM_AGE: Final = 20.0


class DatabaseAwayError(Exception):
    """The database could not be asked, or its answer was lost: what was to be written may be, or not."""


class Replica:
    """One process of control."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._breakers: dict[str, Breaker] = {}
        self._working: set[str] = set()
        self._listening: dict[str, Event] = {}
        self._bell = Event()
        self.name = name
        self.host = Host(world.kernel, name)
        self.host.spawn(self._run())
        self.host.spawn(self._sweep())
        self.host.spawn(self._sweep_rooms())

    def ring(self, conference: str) -> None:
        """Be notified."""
        self._bell.set()
        if conference in self._listening:
            self._listening[conference].set()

    async def write(self, what: Callable[[Registry], T]) -> T:
        """Do one transaction. Raises DatabaseAwayError."""
        world = self._world
        await world.kernel.sleep(world.chance.uniform(0.0005, 0.01))
        if world.database_away:
            raise DatabaseAwayError
        value = what(world.registry)
        await world.kernel.sleep(world.chance.uniform(0.0005, 0.005))
        if world.chance.random() < world.lost_commits:
            raise DatabaseAwayError
        return value

    # --- claiming -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._bell.clear()
            try:
                claims = await self.write(lambda registry: registry.claim(ttl=_TTL, excluding=self._working))
            except DatabaseAwayError:
                claims = []
            for conference, claim, version in claims:
                self._working.add(conference)
                self.host.spawn(self._work(conference, claim, version))
            await self._wait(self._bell, _POLL)

    async def _sweep(self) -> None:
        while True:
            await self._world.kernel.sleep(_POLL)
            try:
                while (gone := await self.write(lambda registry: registry.sweep())) is not None:
                    self._world.note(f"{self.name}: {gone} is lost")
            except DatabaseAwayError:
                continue

    async def _sweep_rooms(self) -> None:
        """Delete rooms that nobody needs. One replica does so at a time; that two do is only more."""
        while True:
            await self._world.kernel.sleep(_ROOMS)
            for name, cluster in self._world.clusters.items():
                if not cluster.ours:
                    continue
                try:
                    if await self.write(lambda registry, name=name: registry.online(name)):  # type: ignore[misc]  # bound now
                        await self._sweep_cluster(name)
                except (DatabaseAwayError, LateError, HostGoneError):
                    continue

    async def _sweep_cluster(self, name: str) -> None:
        there = self._world.clusters[name]
        call = self._world.network.call
        rooms = await call("control", name, lambda: there.host, there.list_rooms, timeout=_CALL)
        found = await self.write(lambda registry: registry.unplaced(name, rooms, min_age=_ROOM_AGE))
        for room, epoch in found:
            self._world.note(f"{self.name}: the room of {room} at {name} is left over")
            delete = partial(there.delete_room, room, epoch)
            await call("control", name, lambda: there.host, delete, timeout=_CALL)

    async def _work(self, conference: str, claim: int, version: int) -> None:
        changed = self._listening[conference] = Event()
        work = _Work(self, conference, claim, changed)
        try:
            await work.run(version)
        except DatabaseAwayError:
            pass  # the claim runs out
        finally:
            work.drop()
            self._working.discard(conference)
            del self._listening[conference]
            self._bell.set()

    async def _wait(self, event: Event, seconds_: float) -> None:
        try:
            await self._world.kernel.within(event.wait(), seconds_)
        except LateError:
            return

    # --- what the work needs ----------------------------------------------------------------------

    async def look(self, conference: str) -> tuple[float, View] | None:
        """Return the view and its time, with what this replica thinks of the clusters."""
        now, view = await self.write(lambda registry: (registry.now, view_of(registry, conference)))
        if view is None:
            return None
        self._world.registry.planned_with[conference] = view.round_trips
        facts = {
            name: replace(each, breaker_open=True, breaker_until=moment(max(now, breaker.retry_at)))
            for name, each in view.clusters.items()
            if (breaker := self._breakers.get(name)) is not None and not breaker.admits(now)
        }
        return now, replace(view, clusters={**view.clusters, **facts})

    async def pause(self, event: Event) -> None:
        """Wait until something changed, but not for longer than the claim allows."""
        await self._wait(event, _TTL / 3)

    async def do(self, view: View, action: Action) -> bool:
        """Carry it out; False if nothing could be begun."""
        self._world.acted(view.conference, action, self.name)
        try:
            return await Hands(self, self._world, view).do(action)
        except DatabaseAwayError:
            return False

    async def call(self, cluster: str, ask: Callable[[Cluster], Awaitable[T]], *, in_time: bool = False) -> T:
        """Ask a cluster something. Raises FailedError.

        `in_time`: it does nothing once we have given up waiting.
        """
        world, now = self._world, self._world.kernel.now
        there = world.clusters[cluster]
        breaker = self._breakers.setdefault(
            cluster,
            Breaker(BreakerSettings(), Backoff(base=2.0, cap=30.0, floor=1.0, uniform=world.chance.uniform)),
        )
        life = breaker.begin(now)
        error: str | None = None
        patience = Patience()

        async def answer() -> T:
            if in_time and patience.over:
                raise HostGoneError("nobody waits any more")
            return await ask(there)

        try:
            return await world.network.call(
                "control", cluster, lambda: there.host, answer, timeout=_CALL, patience=patience
            )
        except (LateError, HostGoneError) as why:
            error = str(why)
            raise FailedError(error) from None
        except world.refused as why:
            raise FailedError(str(why)) from None
        finally:
            breaker.end(life, world.kernel.now, error=error)

    def delay(self, attempts: int) -> float:
        """Return how long to wait after a failure."""
        backoff = Backoff(base=0.5, cap=10.0, uniform=self._world.chance.uniform)
        backoff.attempts = attempts
        return backoff.next_delay()


class _Work:
    """One claimed conference, until nothing is missing in it or the claim is gone."""

    def __init__(self, replica: Replica, conference: str, claim: int, changed: Event) -> None:
        self._replica = replica
        self._conference = conference
        self._claim = claim
        self._changed = changed
        self._under_way: dict[Subject, Callable[[], None]] = {}
        self._put_off: set[Subject] = set()
        self._ended = False

    async def run(self, version: int | None) -> None:
        replica, conference = self._replica, self._conference
        while version is not None:
            self._changed.clear()
            seen = await self._look()
            if seen is None:
                return
            now, view = seen
            self._begin(view, now)
            if not self._under_way and await self._finish(view, now, version):
                return
            if self._under_way:
                await replica.pause(self._changed)
            version = await replica.write(lambda registry: registry.renew(conference, self._claim, ttl=_TTL))

    def drop(self) -> None:
        """End what is under way."""
        for end in list(self._under_way.values()):
            end()

    async def _look(self) -> tuple[float, View] | None:
        while True:
            self._ended = False
            seen = await self._replica.look(self._conference)
            if not self._ended:
                return seen

    def _begin(self, view: View, now: float) -> None:
        for action in plan(view, moment(now)):
            subject = _subject(action)
            if subject in self._under_way or subject in self._put_off:
                continue
            if isinstance(action, ForgetConference) and self._under_way:
                continue
            self._under_way[subject] = lambda: None
            self._under_way[subject] = self._replica.host.spawn(self._act(view, action, subject))

    async def _act(self, view: View, action: Action, subject: Subject) -> None:
        try:
            if not await self._replica.do(view, action):
                self._put_off.add(subject)
        finally:
            self._under_way.pop(subject, None)
            self._ended = True
            self._changed.set()

    async def _finish(self, view: View, now: float, version: int) -> bool:
        look = next_look(view, moment(now))
        due = None if look is None else seconds(look)
        if self._put_off:
            due = min(now + _PUT_OFF, now + _PUT_OFF if due is None else due)
        return await self._replica.write(
            lambda registry: registry.finish(self._conference, self._claim, version=version, due_at=due)
        )


def _subject(action: Action) -> Subject:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster) | ForgetPlacement(cluster):
            return ("room", cluster)
        case MoveClients(cluster):
            return ("clients", cluster)
        case AssignAgent(cluster, kind, _) | UnassignAgent(cluster, kind, _):
            return ("agent", cluster, kind)
        case ForgetConference():
            return ("conference",)
        case FetchBridges() | StartCascade() | StopCascade() | ForgetLink():
            return ("link", *sorted((action.dialer, action.listener)))
