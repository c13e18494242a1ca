"""Clients: they join, stay, are told to move, lose their cluster, come back, and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench._simulation.kernel import Event, Host, HostGoneError, LateError
from bench._simulation.replica import DatabaseAwayError

if TYPE_CHECKING:
    from bench._simulation.registry import Registry
    from bench._simulation.world import World

__all__ = ["Person"]

_ROOM_WAIT: Final = 8.0


class Person:
    """Somebody who wants to be in one conference."""

    def __init__(self, world: World, name: str, conference: str, region: str) -> None:
        self._world = world
        self._tries = 0
        self.name = name
        self.conference = conference
        self.region = region
        self.wants = False
        self.at: str | None = None
        """The cluster that they are in."""
        self.participant = ""
        self._changed = Event()
        self._moved_to: str | None = None
        self.host = Host(world.kernel, name)
        self.host.spawn(self._live())

    def come(self) -> None:
        """Want to be in."""
        self.wants = True
        self._changed.set()

    def go(self) -> None:
        """Want to be out."""
        self.wants = False
        self._changed.set()

    def lost(self) -> None:
        """Notice that the connection to the cluster is gone."""
        self.at = None
        self._changed.set()

    def told(self, to: str) -> None:
        """Hear where to go."""
        self._moved_to = to
        self._changed.set()

    async def _live(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self.wants:
                self._leave()
                continue
            if self.at is not None and self._moved_to not in {None, self.at}:
                self._leave()
            if self.at is None:
                await self._enter()

    def _leave(self) -> None:
        if self.at is not None:
            self._world.clusters[self.at].leave(self.conference, self.participant)
            self._world.note(f"{self.name} left {self.at}")
            self.at = None

    async def _enter(self) -> None:
        world, kernel = self._world, self._world.kernel
        await kernel.sleep(world.chance.uniform(0.05, 2.0))
        if not self._still_wants() or self.at is not None:
            return
        to, self._moved_to = self._moved_to, None
        try:
            if to is None:
                to = await self._ask()
            if to is not None and (placement := await self._wait_for_room(to)) is not None:
                await kernel.sleep(world.network.delay())
                self._tries += 1
                participant = f"{self.name}.{self._tries}"
                if not self._still_wants():
                    return
                if world.clusters[to].join(self.conference, participant, self.name, placement):
                    self.at, self.participant = to, participant
                    world.seated[participant] = self
                    world.note(f"{self.name} is in {self.conference} at {to}")
                    return
                await self._tell_missing(to)
        except (LateError, HostGoneError, DatabaseAwayError):
            pass
        if self._still_wants():
            self._changed.set()  # and try again

    def _still_wants(self) -> bool:
        return self.wants

    async def _ask(self) -> str | None:
        """Join by control; return the cluster."""
        world, conference = self._world, self.conference
        to = world.choose(conference, self.region)
        if to is None:
            return None

        def join(registry: Registry) -> bool:
            registry.create(conference, world.topology)
            return registry.reserve(conference, to, self.name)

        return to if await world.ask_control("clients", join, timeout=3.0) else None

    async def _tell_missing(self, at: str) -> None:
        """Have control find out, as it does where it asks the cluster for each token."""
        cluster = self._world.clusters[at]
        row = self._world.registry.placements.get((self.conference, at))
        token = None if row is None else row.token
        if not cluster.signed and cluster.alive and self.conference not in cluster.rooms:
            await self._world.ask_control(
                "clients", lambda registry: registry.room_missing(self.conference, at, token), timeout=3.0
            )

    async def _wait_for_room(self, to: str) -> int | None:
        """Return the placement that the token is for, once its room is there."""
        kernel, registry = self._world.kernel, self._world.registry
        until = kernel.now + _ROOM_WAIT
        while kernel.now < until:
            row = registry.placements.get((self.conference, to))
            if row is not None and row.state == "ready":
                return row.epoch
            await kernel.sleep(0.1)
        registry.give_up(self.conference, to, self.name)
        return None
