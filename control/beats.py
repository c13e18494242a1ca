"""Gathers heartbeats and writes them together: a thousand clusters cost twenty statements a second.

Who beats is answered once the lease is renewed, not before. What the common statement did not renew (an old
epoch, a lease that ran out, a row that somebody was working on) is looked at in a second one; only beats for
rows that are being worked on are then written alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from control.errors import DatabaseUnavailableError, OverloadedError
from control.registry import beats, clusters
from control.registry.beats import Beat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from causeway.api import Load
    from control.registry.lane import Lane
    from control.registry.store import Store

__all__ = ["Beats"]


class _Waiting(NamedTuple):
    """The newest beat of a registration, and all who wait for it to be written."""

    beat: Beat
    askers: list[asyncio.Future[bool]]


class Beats:
    """Renews leases. `gather`: seconds that a beat may wait for others; `max_waiting`: how many may."""

    def __init__(
        self, store: Store, lane: Lane, *, ttl: float, gather: float, max_waiting: int = 20_000
    ) -> None:
        """`lane` is used for what is written together, by `run` alone."""
        self._store = store
        self._lane = lane
        self._ttl = ttl
        self._gather = gather
        self._max_waiting = max_waiting
        self._running = False
        self._arrived = asyncio.Event()
        self._waiting: dict[tuple[str, int], _Waiting] = {}

    async def beat(self, cluster: str, epoch: int, load: Load) -> None:
        """Renew the cluster's lease and keep its load.

        Raises ClusterUnknownError, StaleEpochError, DatabaseUnavailableError and OverloadedError.
        """
        if not self._running or not await self._together(Beat(cluster, epoch, load)):
            await self._store.write(
                clusters.heartbeat, cluster, epoch=epoch, load=beats.columns(load), ttl=self._ttl
            )

    def _together(self, beat: Beat) -> asyncio.Future[bool]:
        """Have it written with others; the result says whether it was."""
        key = (beat.cluster, beat.epoch)
        known = self._waiting.get(key)
        if known is None and len(self._waiting) >= self._max_waiting:
            raise OverloadedError("too many heartbeats are waiting", retry_after=1)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        askers = [] if known is None else known.askers
        askers.append(done)
        self._waiting[key] = _Waiting(beat, askers)
        self._arrived.set()
        return done

    async def run(self) -> None:
        """Write what comes in, until cancelled."""
        self._running = True
        try:
            while True:
                await self._arrived.wait()
                await asyncio.sleep(self._gather)  # the very point: others arrive meanwhile
                self._arrived.clear()
                batch, self._waiting = self._waiting, {}
                try:
                    await self._write(batch)
                finally:
                    _answer(batch.values(), renewed=False)
        finally:
            self._running = False
            _answer(self._waiting.values(), renewed=False)
            self._waiting = {}
            self._lane.close()

    async def _write(self, batch: dict[tuple[str, int], _Waiting]) -> None:
        fates: dict[str, tuple[int, bool]] = {}
        try:
            renewed = await beats.renew(self._lane, [each.beat for each in batch.values()], ttl=self._ttl)
            missed = [cluster for cluster, epoch in batch if (cluster, epoch) not in renewed]
            if missed:
                fates = await beats.fates(self._lane, missed)
        except DatabaseUnavailableError as error:
            for each in batch.values():
                _refuse(each, error)
            return
        for (cluster, epoch), each in batch.items():
            if (cluster, epoch) in renewed:
                _answer((each,), renewed=True)
            elif (refused := clusters.refusal(cluster, epoch, fates.get(cluster))) is not None:
                _refuse(each, refused)
            else:  # somebody is working on its row
                _answer((each,), renewed=False)


def _answer(those: Iterable[_Waiting], *, renewed: bool) -> None:
    for each in those:
        for done in each.askers:
            if not done.done():
                done.set_result(renewed)


def _refuse(each: _Waiting, error: Exception) -> None:
    for done in each.askers:
        if not done.done():
            done.set_exception(error)
            done.exception()  # seen: whoever beat may have gone
