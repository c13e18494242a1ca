"""This process as one replica of several: its lease, the duties that it has, and news of what it remembers.

A beat renews the lease and says who else is there; control.shares says from that who does what. A duty is
done by its body, which runs for ever on a store that refuses what a former holder writes. When the lease
cannot be renewed in time, every duty is dropped before another replica can have taken it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from causeway.backoff import Backoff
from control.errors import DatabaseUnavailableError
from control.registry import duties, replicas
from control.registry.duties import DutyLostError, Held
from control.shares import share_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from control.registry.lane import Lane
    from control.registry.replicas import Heard
    from control.registry.store import Store
    from control.replica_settings import ReplicaSettings

__all__ = ["Body", "Duty", "Replica"]

_log = structlog.get_logger(__name__)

Body: TypeAlias = "Callable[[Store], Coroutine[Any, Any, None]]"

_STOP_TIMEOUT: Final = 2.0
"""Seconds for saying good-bye; without it the lease runs out by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What exactly one replica shall do at a time."""

    name: str
    body: Body
    """Runs until it is cancelled, with the store that it must write with."""
    fenced: bool = True
    """Whether the store refuses what a former holder writes. Its transactions must then not pause for longer
    than the lease; False for what does harm to nobody when it is done twice."""


@dataclass(slots=True)
class _Doing:
    held: Held
    task: asyncio.Task[None]


class Replica:
    """This replica. `run` must be running beside everything else; it ends by cancellation only.

    `remembered`: for each cache, what has to be called when that which is remembered may be out of date.
    `on_return(seconds)` is awaited when none was alive for so long (infinite: never), before this one is:
    what ran out meanwhile says nothing about those who could not renew it.
    `lane`: a connection for this alone, so that no other work can delay a beat.
    """

    def __init__(
        self,
        store: Store,
        lane: Lane,
        settings: ReplicaSettings,
        *,
        name: str,
        version: str,
        revision: str,
        duties: Sequence[Duty],
        remembered: Mapping[str, Callable[[], None]],
        on_return: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._lane = lane
        self._settings = settings
        self._duties = {duty.name: duty for duty in duties}
        self._remembered = remembered
        self._on_return = on_return
        self._me = replicas.Identity(
            id=uuid.uuid4(), name=name, version=version, revision=revision, duties=tuple(sorted(self._duties))
        )
        self._until = float("-inf")
        self._versions: dict[str, int] = {}
        self._doing: dict[str, _Doing] = {}
        self._clearing: asyncio.Task[None] | None = None

    @property
    def id(self) -> uuid.UUID:
        """What claims are named by."""
        return self._me.id

    @property
    def name(self) -> str:
        """What operators know it by."""
        return self._me.name

    @property
    def alive(self) -> bool:
        """Whether the lease holds, as far as can be told here."""
        return time.monotonic() < self._until

    @property
    def doing(self) -> frozenset[str]:
        """The duties that it has now."""
        return frozenset(self._doing)

    def changed(self, cache: str) -> None:
        """Hear that a cache is out of date: an announcement. The beats find it, too, a little later."""
        stale = self._remembered.get(cache)
        if stale is not None:
            stale()

    async def run(self) -> None:
        """Beat, and do what falls to this replica."""
        known = False
        troubled = False
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    began = time.monotonic()
                    try:
                        async with asyncio.timeout(max(self._until - began, self._settings.beat_interval)):
                            if not known:
                                await duties.know(self._lane, tuple(self._duties))
                                known = True
                            await self._follow(group, await self._beat(began))
                        troubled = False
                    except (DatabaseUnavailableError, TimeoutError) as error:
                        if not troubled:
                            _log.warning("replica.no_beat", error=type(error).__name__)
                        troubled = True
                    if not self.alive:
                        self._drop_all("the lease ran out")
                    await asyncio.sleep(max(0.0, began + self._settings.beat_interval - time.monotonic()))
        finally:
            await self._leave()

    # --- the lease ----------------------------------------------------------------------------

    async def _beat(self, began: float) -> Heard:
        if not self.alive and self._on_return is not None:
            absence = await self._store.read(replicas.absence)
            if absence > 0:
                await self._on_return(absence)
        heard = await replicas.beat(self._lane, self._me, ttl=self._settings.ttl)
        if not self.alive:
            # Others may have done the duties since: nothing of before is true any more.
            self._drop_all("the lease had run out")
        # Counted from before it was asked for: here it ends earlier than it does for the others.
        self._until = began + self._settings.ttl
        return heard

    async def _leave(self) -> None:
        self._lane.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._store.write(replicas.stop, self._me.id)
        except (DatabaseUnavailableError, TimeoutError) as error:
            _log.warning("replica.left_silently", error=type(error).__name__)

    # --- what was heard -----------------------------------------------------------------------

    async def _follow(self, group: asyncio.TaskGroup, heard: Heard) -> None:
        self._compare(heard.caches)
        if heard.uncleared and (self._clearing is None or self._clearing.done()):
            self._clearing = group.create_task(self._clear(heard.uncleared))
        for name, doing in tuple(self._doing.items()):
            if heard.duties.get(name) != (doing.held.holder, doing.held.epoch):
                self._drop(name, "another replica has it")
        mine = share_out({name: holder for name, (holder, _) in heard.duties.items()}, heard.alive)
        for name in sorted(self._duties.keys() & heard.duties.keys()):
            holder, epoch = heard.duties[name]
            if mine.get(name) == self._me.id:
                if name not in self._doing:
                    await self._take(group, name, seen=epoch)
            elif name in self._doing:
                await self._hand_over(name, self._doing[name])
            elif holder == self._me.id:  # from before a lease that ran out
                await duties.release(self._lane, Held(name, self._me.id, epoch))

    def _compare(self, caches: Mapping[str, int]) -> None:
        """Find out what changed without our having heard of it."""
        for cache, version in caches.items():
            if self._versions.get(cache) != version:
                self._versions[cache] = version
                self.changed(cache)

    async def _take(self, group: asyncio.TaskGroup, name: str, *, seen: int) -> None:
        held = await duties.take(self._lane, name, holder=self._me.id, seen=seen)
        if held is not None:
            _log.info("duty.taken", duty=name, epoch=held.epoch)
            self._doing[name] = _Doing(held, group.create_task(self._do(self._duties[name], held)))

    async def _hand_over(self, name: str, doing: _Doing) -> None:
        """Give it to a replica that has less to do, once our own part has ended."""
        doing.task.cancel()
        if doing.task.done():
            await duties.release(self._lane, doing.held)
            del self._doing[name]
            _log.info("duty.handed_over", duty=name)

    async def _do(self, duty: Duty, held: Held) -> None:
        """Do it until it is taken away. What goes wrong in it is said, and tried again."""
        fence = partial(duties.require, held=held, patience=self._settings.ttl * 0.8)
        store = self._store.fenced(fence) if duty.fenced else self._store
        trouble = Backoff(base=0.2, cap=10.0)
        while True:
            try:
                await duty.body(store)
                _log.error("duty.ended", duty=duty.name)
            except DutyLostError:
                _log.warning("duty.lost", duty=duty.name)
                return
            except DatabaseUnavailableError as error:
                _log.warning("duty.database_unavailable", duty=duty.name, error=error.detail)
            except Exception:  # noqa: BLE001 - a defect in one duty must not end the others; logged
                _log.exception("duty.failed", duty=duty.name)
            await asyncio.sleep(trouble.next_delay())

    def _drop(self, name: str, reason: str) -> None:
        doing = self._doing.pop(name)
        doing.task.cancel()
        _log.warning("duty.dropped", duty=name, reason=reason)

    def _drop_all(self, reason: str) -> None:
        for name in tuple(self._doing):
            self._drop(name, reason)

    async def _clear(self, gone: tuple[uuid.UUID, ...]) -> None:
        """Give back what the dead held. What is left of it the next beat finds."""
        for replica in gone:
            try:
                if await self._store.write(replicas.clear, replica):
                    _log.warning("replica.cleared", replica=str(replica))
            except DatabaseUnavailableError as error:
                _log.warning("replica.not_cleared", replica=str(replica), error=error.detail)
