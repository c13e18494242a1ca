"""What placing remembers of the clusters: who there is, how busy, and how they stand for each wish.

Their load is read anew every so often; a change of any of them, counted in the registry's roster, is noticed
with the next statement that tells the roster's version. Decides nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from control.drivers.base import NotSupportedError
from control.drivers.kinds import capabilities
from control.placement import Board, Candidate
from control.registry import roster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from control.placement import Place
    from control.registry.lane import Lane
    from control.registry.reservations import Taken
    from control.registry.roster import Choice, Load
    from control.registry.store import Store

__all__ = ["KnownClusters"]


class KnownClusters:
    """`lifetime`: seconds for which load is remembered."""

    def __init__(self, store: Store, places: Mapping[str, Place], *, lifetime: float) -> None:
        self._store = store
        self._places = places
        self._lifetime = lifetime
        self._read_at = float("-inf")
        self.version = -1
        """The roster's, when it was read."""
        self.board = Board((), places)
        self.choices: dict[str, Choice] = {}

    def doubt(self) -> None:
        """Have everything read again before it is used next."""
        self._read_at = float("-inf")

    def learn(self, cluster: str, taken: Taken | None) -> None:
        """Keep what was found while taking seats; it is newer than what was remembered."""
        candidate = self.board.candidates.get(cluster)
        if candidate is None:
            return
        if taken is None:
            candidate.liveness = "gone"
            return
        candidate.participants = taken.participants
        candidate.conferences = taken.conferences
        candidate.max_participants = taken.max_participants
        candidate.cpu, candidate.streams = taken.cpu, taken.streams

    async def fresh(self, lane: Lane, version: int) -> None:
        """Read the clusters again if one of them changed, or their load is old; `lane` is free just now."""
        now = time.monotonic()
        if version == self.version and now - self._read_at < self._lifetime:
            return
        if version == self.version:
            # Only load and liveness are new; how the clusters stand for each wish is still true.
            version_now, loads = await roster.loads(lane)
            if version_now == version:
                self._read_at = now
                for load in loads:
                    _renew(self.board.candidates[load.cluster], load)
                return
        self.version, choices = await self._store.read(roster.read)
        self._read_at = now
        self.choices = {choice.cluster: choice for choice in choices}
        self.board = Board((_candidate(choice) for choice in choices), self._places)

    async def outdated(self, lane: Lane, since: float) -> bool:
        """Before somebody is turned away: read the clusters again, unless that was done since they came."""
        if self._read_at >= since:
            return False
        self._read_at = float("-inf")
        await self.fresh(lane, self.version)
        return True


def _candidate(choice: Choice) -> Candidate:
    try:
        can = capabilities(choice.driver)
    except NotSupportedError:  # a newer release has registered it
        cascades, room_ids = False, "(?!)"
    else:
        cascades, room_ids = can.cascade, can.room_ids
    return Candidate(
        cluster=choice.cluster,
        region=choice.region,
        driver=choice.driver,
        cascades=cascades,
        room_ids=room_ids,
        modules=choice.modules,
        labels=choice.labels,
        location=choice.location,
        cost=choice.cost,
        max_participants=choice.max_participants,
        max_conferences=choice.max_conferences,
        draining=choice.draining,
        blocked=choice.blocked,
        liveness=choice.liveness,
        participants=choice.participants,
        conferences=choice.conferences,
        streams=choice.streams,
        cpu=choice.cpu,
        bandwidth=choice.bandwidth,
    )


def _renew(candidate: Candidate, load: Load) -> None:
    candidate.liveness = load.liveness
    candidate.participants = load.participants
    candidate.conferences = load.conferences
    candidate.streams = load.streams
    candidate.cpu = load.cpu
    candidate.bandwidth = load.bandwidth
