"""Gathers heartbeats and writes them together: a thousand clusters cost twenty statements a second.

Who beats is answered once the lease is renewed, not before. What the common statement did not renew (an old
epoch, a lease that ran out, a row that somebody was working on) is looked at in a second one; only beats for
rows that are being worked on are then written alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from control.errors import DatabaseUnavailableError, OverloadedError
from control.registry import beats, clusters
from control.registry.beats import Beat

if TYPE_CHECKING:
    from causeway.api import Load
    from control.registry.store import Store

__all__ = ["Beats"]


class Beats:
    """Renews leases. `gather`: seconds that a beat may wait for others; `max_waiting`: how many may."""

    def __init__(self, store: Store, *, ttl: float, gather: float, max_waiting: int = 20_000) -> None:
        self._store = store
        self._ttl = ttl
        self._gather = gather
        self._max_waiting = max_waiting
        self._running = False
        self._arrived = asyncio.Event()
        self._waiting: dict[tuple[str, int], tuple[Beat, asyncio.Future[bool]]] = {}

    async def beat(self, cluster: str, epoch: int, load: Load) -> None:
        """Renew the cluster's lease and keep its load.

        Raises ClusterUnknownError, StaleEpochError, DatabaseUnavailableError and OverloadedError.
        """
        if not self._running or not await self._together(Beat(cluster, epoch, load)):
            await self._store.write(
                clusters.heartbeat, cluster, epoch=epoch, load=beats.columns(load), ttl=self._ttl
            )

    async def _together(self, beat: Beat) -> bool:
        """Have it written with others; return whether it was."""
        key = (beat.cluster, beat.epoch)
        known = self._waiting.get(key)
        if known is None and len(self._waiting) >= self._max_waiting:
            raise OverloadedError("too many heartbeats are waiting", retry_after=1)
        done = known[1] if known is not None else asyncio.get_running_loop().create_future()
        self._waiting[key] = (beat, done)
        self._arrived.set()
        return await asyncio.shield(done)

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
                    for _, done in batch.values():
                        _answer(done, renewed=False)
        finally:
            self._running = False
            for _, done in self._waiting.values():
                _answer(done, renewed=False)
            self._waiting = {}

    async def _write(self, batch: dict[tuple[str, int], tuple[Beat, asyncio.Future[bool]]]) -> None:
        fates: dict[str, tuple[int, bool]] = {}
        try:
            renewed = await self._store.read(beats.renew, [beat for beat, _ in batch.values()], ttl=self._ttl)
            missed = [cluster for cluster, epoch in batch if (cluster, epoch) not in renewed]
            if missed:
                fates = await self._store.read(beats.fates, missed)
        except DatabaseUnavailableError as error:
            for _, done in batch.values():
                _refuse(done, error)
            return
        for (cluster, epoch), (_, done) in batch.items():
            refused = clusters.refusal(cluster, epoch, fates.get(cluster))
            if (cluster, epoch) in renewed:
                _answer(done, renewed=True)
            elif refused is not None:
                _refuse(done, refused)
            else:  # somebody is working on its row
                _answer(done, renewed=False)


def _answer(done: asyncio.Future[bool], *, renewed: bool) -> None:
    if not done.done():
        done.set_result(renewed)


def _refuse(done: asyncio.Future[bool], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # seen: whoever beat may have gone
