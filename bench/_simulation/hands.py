"""What each action of a plan means in the modelled world, step by step; after control.cascade.hands."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench._simulation.registry import Registry
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

if TYPE_CHECKING:
    from bench._simulation.replica import Replica
    from bench._simulation.world import World
    from control.cascade.view import Action, View

__all__ = ["FailedError", "Hands"]


def _rows(registry: Registry, conference: str, action: Action) -> None:
    """Do what needs nobody to be asked."""
    match action:
        case AssignAgent(cluster, kind, agent):
            registry.assign(conference, cluster, kind, agent)
        case UnassignAgent(cluster, kind, agent):
            registry.unassign(conference, cluster, kind, agent)
        case ForgetLink(dialer, listener):
            registry.unlink(conference, dialer, listener)
        case ForgetPlacement(cluster):
            registry.remove_placement(conference, cluster, only_lost=True)
        case ForgetConference():
            registry.forget(conference)


class FailedError(Exception):
    """A cluster did not do what it was asked."""


class Hands:
    """What each action means."""

    def __init__(self, replica: Replica, world: World, view: View) -> None:
        self._replica = replica
        self._world = world
        self._view = view
        self._conference = view.conference

    async def do(self, action: Action) -> bool:
        """Carry it out; False if nothing could be begun. Raises DatabaseAwayError."""
        match action:
            case CreateRoom(cluster):
                return await self._create_room(cluster)
            case RemoveRoom(cluster):
                return await self._remove_room(cluster)
            case MoveClients(cluster):
                return await self._move_clients(cluster)
            case FetchBridges() | StartCascade() | StopCascade():
                return await self._link(action)
        await self._replica.write(lambda registry: _rows(registry, self._conference, action))
        return True

    async def _link(self, action: FetchBridges | StartCascade | StopCascade) -> bool:
        match action:
            case FetchBridges(dialer, listener):
                return await self._fetch_bridges(dialer, listener)
            case StartCascade(dialer, listener):
                return await self._start_cascade(dialer, listener)
            case StopCascade(dialer, listener):
                return await self._stop_cascade(dialer, listener)

    async def _create_room(self, cluster: str) -> bool:
        conference, write = self._conference, self._replica.write
        placement = next(p for p in self._view.placements if p.cluster == cluster)
        incarnation = await write(
            lambda registry: registry.clusters[cluster].incarnation if registry.online(cluster) else None
        )
        if incarnation is None:
            return False
        try:
            await self._replica.call(cluster, lambda there: there.create_room(conference, placement.epoch))
            known = await write(
                lambda registry: (
                    registry.created(conference, cluster, incarnation=incarnation, epoch=placement.epoch)
                    or (conference, cluster) in registry.placements
                )
            )
            if not known:
                await self._replica.call(
                    cluster, lambda there: there.delete_room(conference, placement.epoch)
                )
        except FailedError:
            await self._room_failed(cluster, placement.attempts)
        return True

    async def _remove_room(self, cluster: str) -> bool:
        conference, write = self._conference, self._replica.write
        ending = self._view.state == "ending"
        if not await write(lambda registry: registry.online(cluster)):
            return False
        placement = next(p for p in self._view.placements if p.cluster == cluster)
        epoch: int | None = placement.epoch
        if not ending:
            if not await write(lambda registry: registry.vacate(conference, cluster)):
                return True
            epoch = await write(lambda registry: registry.renew_placement(conference, cluster))
        if epoch is None:
            return True
        named = epoch
        try:
            await self._replica.call(cluster, lambda there: there.delete_room(conference, named))
        except FailedError:
            await self._room_failed(cluster, placement.attempts)
            return True
        if ending:
            await write(lambda registry: registry.remove_placement(conference, cluster))
        else:
            await write(lambda registry: registry.vacated(conference, cluster))
        return True

    async def _room_failed(self, cluster: str, attempts: int) -> None:
        delay = self._replica.delay(attempts)
        await self._replica.write(lambda registry: registry.room_failed(self._conference, cluster, delay))

    async def _fetch_bridges(self, dialer: str, listener: str) -> bool:
        conference, write = self._conference, self._replica.write
        order = await write(lambda registry: registry.begin_fetch(conference, dialer, listener))
        if order is None:
            return False
        agent = self._agent_of(listener)
        if agent is not None:
            bridges = await write(
                lambda registry: registry.agents[agent].address if agent in registry.agents else None
            )
            if bridges is None:
                return False
        else:
            try:
                bridges = await self._replica.call(listener, lambda there: there.get_bridges())
            except FailedError:
                await self._link_failed(dialer, listener, order)
                return True
        await write(lambda registry: registry.fetched(conference, dialer, listener, order, bridges))
        return True

    async def _start_cascade(self, dialer: str, listener: str) -> bool:
        conference, write = self._conference, self._replica.write
        if self._agent_of(dialer) is not None:
            return await write(lambda registry: registry.order_by_agent(conference, dialer, listener))
        row = await write(lambda registry: registry.placements.get((conference, listener)))
        token = None if row is None else row.token
        if token is None:
            return False
        begun = await write(lambda registry: registry.begin_order(conference, dialer, listener))
        if begun is None:
            return False
        order, bridges = begun
        try:
            await self._replica.call(
                dialer,
                lambda there: there.start_cascade(conference, token, listener, bridges),
                # Who does not tell how the link is could dial a former address for ever, unnoticed.
                in_time=self._world.clusters[dialer].kind in {"silent", "blind"},
            )
        except FailedError:
            await self._link_failed(dialer, listener, order)
            return True
        await write(lambda registry: registry.order_taken(conference, dialer, listener, order))
        return True

    async def _link_failed(self, dialer: str, listener: str, order: int) -> None:
        row = next((k for k in self._view.links if (k.dialer, k.listener) == (dialer, listener)), None)
        delay = self._replica.delay(0 if row is None else row.attempts)
        await self._replica.write(
            lambda registry: registry.order_failed(self._conference, dialer, listener, order, delay)
        )

    async def _stop_cascade(self, dialer: str, listener: str) -> bool:
        conference = self._conference
        row = next(k for k in self._view.links if (k.dialer, k.listener) == (dialer, listener))
        if row.via == "driver":
            try:
                await self._replica.call(dialer, lambda there: there.stop_cascade(conference, listener))
            except FailedError:
                delay = self._replica.delay(row.attempts)
                await self._replica.write(
                    lambda registry: registry.stop_failed(conference, dialer, listener, delay)
                )
                return True
        await self._replica.write(lambda registry: registry.unlink(conference, dialer, listener))
        return True

    async def _move_clients(self, cluster: str) -> bool:
        conference, world, write = self._conference, self._world, self._replica.write
        for participant, user in await write(lambda registry: registry.displaced(conference, cluster)):
            to = world.choose(conference, world.clusters[cluster].region)
            if to is None:
                await self._room_failed(cluster, 0)
                return True
            world.note(f"{self._replica.name}: {user} is to move from {cluster} to {to}")
            await write(
                partial(Registry.move, conference=conference, cluster=cluster, participant=participant, to=to)
            )
        return True

    def _agent_of(self, cluster: str) -> str | None:
        placement = next((p for p in self._view.placements if p.cluster == cluster), None)
        return None if placement is None else dict(placement.agents).get("event")
