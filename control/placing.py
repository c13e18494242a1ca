"""Decides where clients go, many at a time, and takes their seats: what control.placement decides, made real.

Joins that come at once are worked on together: one statement reads their conferences, one takes their seats.
The clusters are remembered; their load is read anew every so often, and a change of any of them (counted in
the registry's roster) is noticed with the next read. What could not be had (somebody else was faster) is
decided again with what was learnt. While the database takes the seats of a batch, this process has time for
what else its clients will be given.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import structlog
from msgspec import Struct

from control.drivers.base import RoomToken
from control.errors import (
    ConferenceEndingError,
    ConferenceLockedError,
    ConferenceUnknownError,
    NoClusterError,
    OverloadedError,
    RefusedError,
    RoleNotAllowedError,
)
from control.known_clusters import KnownClusters
from control.placement import (
    DEFAULT_POLICY,
    Conference,
    Decision,
    Place,
    Wish,
    decide,
    load_rules,
    make_policies,
    pack,
    sentence,
)
from control.placing_memory import Memory
from control.registry import decisions, reservations, roster, templates
from control.registry.reservations import Seat
from control.registry.roster import Choice, Placed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from random import Random

    from causeway.api import Template
    from control.placement import Policy, Rules
    from control.placement_settings import PlacementSettings, RegionSettings
    from control.registry.lane import Lane
    from control.registry.roster import Joined
    from control.registry.store import Store

__all__ = ["Meanwhile", "Offer", "Placing", "Visit", "Where"]

_log = structlog.get_logger(__name__)

_RETRY_AFTER: Final = 2
_ROUNDS: Final = 8
"""Decisions made anew for one join because a seat was gone; then every cluster is as good as full."""
_PATIENT_ROUNDS: Final = 2
_TRIMMED_AT_ONCE: Final = 500
_HELP_AFTER: Final = 0.02
"""Seconds that joins wait for the first lane before another one takes them."""
_LATE: Final = 0.25
"""Seconds between looks for joins that have waited too long."""
_DEMANDS_KEPT: Final = 1024


@dataclass(slots=True, kw_only=True)
class Visit:
    """A client that wants to join, as it comes to be known."""

    conference: str
    user: str
    role: str
    region: str | None = None
    location: tuple[float, float] | None = None
    latencies: tuple[tuple[str, float], ...] = ()
    everybody: bool = False
    """Look at all clusters, to explain."""
    returning: bool = False
    """It was in the conference, and lost its place by no fault of its own: a lock does not keep it out."""
    tried: set[str] = field(default_factory=set)
    """Clusters that have failed for this client."""


class Where(Struct, frozen=True, kw_only=True):
    """Where a client goes. Its seat is taken; its placement may still have to become ready."""

    choice: Choice
    decision: Decision
    seat: Seat
    placed: Placed | None
    """The conference on that cluster, if its room is ready."""
    token: RoomToken | None = None
    """What `Meanwhile` made for it."""


class Offer(NamedTuple):
    """What was decided for a client."""

    where: Where
    taken: bool
    """The seat is theirs; else it is still to be had, by `Placing.settle`."""


Meanwhile: TypeAlias = "Callable[[Where], RoomToken | None]"
"""Makes a client's token while its seat is being taken; it is thrown away if the seat cannot be had."""


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a template and a client's whereabouts together ask of placement."""

    policy: Policy
    roles: tuple[str, ...]
    wish: Wish


@dataclass(slots=True)
class _Job:
    visit: Visit
    meanwhile: Meanwhile | None
    done: asyncio.Future[Offer]
    since: float = field(default_factory=time.monotonic)
    rounds: int = 0


class Placing:
    """The placement service; `run` must be running beside it."""

    def __init__(
        self,
        store: Store,
        lanes: Sequence[Lane],
        settings: PlacementSettings,
        regions: Mapping[str, RegionSettings],
        *,
        required_modules: frozenset[str],
        patience: float,
        rng: Random,
        rules: Rules | None = None,
    ) -> None:
        """Find the policies' rules. Raises ConfigError for a policy or plug-in that cannot be used.

        `patience`: seconds that a client waits for a decision at most.
        """
        self._store = store
        self._lanes = lanes
        """Each is used by one task that works on batches: one waits for the database, another decides."""
        self._settings = settings
        self._required = required_modules
        self._patience = patience
        self._rng = rng
        self._policies = make_policies(settings.policies, load_rules() if rules is None else rules)
        places = {
            name: Place(
                groups=frozenset(each.groups),
                location=None if each.location is None else (each.location.lat, each.location.lon),
            )
            for name, each in regions.items()
        }
        self._clusters = KnownClusters(store, places, lifetime=settings.max_age)
        self._memory = Memory(lifetime=settings.max_age)
        self._demands: dict[tuple[object, ...], _Demand] = {}
        self._waiting: deque[_Job] = deque()
        self._open: list[_Job] = []
        """All that were asked for, oldest first, with those that are done until somebody looks."""
        self._arrived = asyncio.Event()
        self._crowded = asyncio.Event()
        self._touched: set[str] = set()
        """Conferences with new decisions, to be trimmed."""

    # --- for joins ----------------------------------------------------------------------------

    async def place(self, visit: Visit, meanwhile: Meanwhile | None = None) -> Where:
        """Decide, and take the seat: an offer, settled. Raises what `offer` and `settle` raise."""
        return await self.settle(visit, await self.offer(visit, meanwhile), meanwhile)

    def offer(self, visit: Visit, meanwhile: Meanwhile | None = None) -> Awaitable[Offer]:
        """Decide, and take the seat where that is simple: most joins get no further than this.

        `meanwhile` may be called or not; it must neither block nor raise. Raises OverloadedError here, and
        when awaited ConferenceUnknownError, ConferenceEndingError, ConferenceLockedError,
        RoleNotAllowedError, NoClusterError with the reasons, DatabaseUnavailableError, and TimeoutError
        after `patience`: nobody else needs to watch the time, and a timer for each join costs more than its
        decision.
        """
        if len(self._waiting) >= self._settings.max_waiting:
            raise OverloadedError("too many joins are waiting", retry_after=1)
        job = _Job(visit, meanwhile, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._open.append(job)
        self._arrived.set()
        if len(self._waiting) >= self._settings.max_batch:
            self._crowded.set()
        return job.done

    async def settle(self, visit: Visit, offer: Offer, meanwhile: Meanwhile | None = None) -> Where:
        """Take the seat that was decided for, wherever there is one in the end.

        Raises what `offer` raises, and ConferenceFullError.
        """
        refused: dict[str, str] = {}
        tried = set(visit.tried)
        for number in range(_ROUNDS):
            if number > 0:
                offer = await self.offer(visit, meanwhile)
            where, taken = offer
            if taken:
                visit.tried = tried
                return where
            reason = await self._store.write(
                reservations.enter,
                where.seat,
                ttl=self._settings.reservation_ttl,
                returning=visit.returning,
                solitary=frozenset(
                    c.cluster for c in self._clusters.board.candidates.values() if not c.cascades
                ),
            )
            if reason is None:
                visit.tried = tried
                self._touched.add(visit.conference)
                return where
            # What was remembered is no longer so: another one, with what is true now.
            refused[where.choice.cluster] = reason
            visit.tried = {*visit.tried, where.choice.cluster}
            self._clusters.doubt()
        raise NoClusterError(
            "; ".join(f"{cluster}: {reason}" for cluster, reason in refused.items()), retry_after=_RETRY_AFTER
        )

    async def release(self, seat: Seat) -> None:
        """Give a seat back that came to nothing."""
        await self._store.write(reservations.release, seat)

    async def clusters(self) -> list[Choice]:
        """Return the clusters as they are now."""
        _, choices = await self._store.read(roster.read)
        return choices

    # --- in the background --------------------------------------------------------------------

    async def run(self) -> None:
        """Decide what comes in and give back what ran out, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, lane in enumerate(self._lanes):
                    group.create_task(self._work(lane, helps=number > 0))
                group.create_task(self._sweep())
                group.create_task(self._watch_the_time())
        finally:
            for lane in self._lanes:
                lane.close()

    async def _work(self, lane: Lane, *, helps: bool) -> None:
        """Work on what waits. One lane makes larger batches, which cost less; others help it when needed."""
        while True:
            await self._arrived.wait()
            if helps:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HELP_AFTER):
                        await self._crowded.wait()
                self._crowded.clear()
            self._arrived.clear()
            while self._waiting:
                batch = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), self._settings.max_batch))
                ]
                batch = [job for job in batch if not job.done.done()]
                if not batch:
                    continue
                try:
                    await self._serve(lane, batch)
                except Exception as error:  # noqa: BLE001 - told to those who wait; the next batch may do better
                    for job in batch:
                        _fail(job, error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_interval)
            try:
                while await self._store.read(reservations.sweep, limit=5000) == 5000:  # noqa: PLR2004 - as asked
                    pass
                touched, self._touched = sorted(self._touched), set()
                for start in range(0, len(touched), _TRIMMED_AT_ONCE):
                    some = touched[start : start + _TRIMMED_AT_ONCE]
                    await self._store.read(decisions.trim, some, keep=self._settings.decisions_kept)
            except RefusedError as error:
                _log.warning("placing.sweep_failed", reason=error.detail)

    async def _watch_the_time(self) -> None:
        """Tell those who have waited too long, a little late."""
        while True:
            await asyncio.sleep(min(_LATE, self._patience))
            overdue = time.monotonic() - self._patience
            self._open = [job for job in self._open if not job.done.done()]
            for job in self._open:
                if job.since > overdue:
                    break
                _fail(job, TimeoutError())

    # --- one batch ----------------------------------------------------------------------------

    async def _serve(self, lane: Lane, batch: list[_Job]) -> None:
        remembered = self._remembered(batch)
        joined = {**remembered, **await self._read(lane, batch, remembered)}
        seats: list[tuple[_Job, Where]] = []
        for job in batch:
            name = job.visit.conference
            try:
                try:
                    where = self._choose(job.visit, joined.get(name))
                except NoClusterError:
                    if name in remembered or not await self._clusters.outdated(lane, job.since):
                        raise
                    where = self._choose(job.visit, joined.get(name))
            except RefusedError as error:
                if name in remembered:  # nobody is turned away for what was true a moment ago
                    self._memory.forget(name)
                    self._waiting.append(job)
                else:
                    _fail(job, error)
                continue
            if where.placed is not None and joined[name].participant_limit < 0:
                seats.append((job, where))
            elif not job.done.done():
                self._memory.forget(name)
                job.done.set_result(Offer(where, taken=False))
        if seats:
            await self._take(lane, seats)

    def _remembered(self, batch: list[_Job]) -> dict[str, Joined]:
        """Return what is remembered of the conferences that are joined."""
        now = time.monotonic()
        found: dict[str, Joined] = {}
        for job in batch:
            name = job.visit.conference
            known = self._memory.conference(name, now) if name not in found else None
            if known is not None and self._memory.template(known.template, known.template_version):
                found[name] = known
        return found

    async def _read(self, lane: Lane, batch: list[_Job], remembered: dict[str, Joined]) -> dict[str, Joined]:
        """Read the other conferences that are joined, and the clusters if what is known of them is old."""
        names = list({job.visit.conference for job in batch} - remembered.keys())
        if not names:
            await self._clusters.fresh(lane, self._clusters.version)
            return {}
        version, joined = await roster.conferences(lane, names)
        await self._clusters.fresh(lane, version)
        for each in joined.values():
            await self._learn_template(each)
            self._memory.keep(each, time.monotonic())
        return joined

    async def _take(self, lane: Lane, seats: list[tuple[_Job, Where]]) -> None:
        # While clusters keep changing, a join that has waited for that goes by what was read a moment ago.
        asked = None if any(job.rounds >= _PATIENT_ROUNDS for job, _ in seats) else self._clusters.version
        tokens: dict[int, RoomToken | None] = {}
        asyncio.get_running_loop().call_soon(_make_tokens, seats, tokens)  # once the statement is on its way
        version, found = await reservations.take(
            lane, [where.seat for _, where in seats], ttl=self._settings.reservation_ttl, version=asked
        )
        await self._clusters.fresh(lane, version)
        for job, where in seats:
            cluster = where.choice.cluster
            taken = found.get(cluster)
            if taken is not None and where.seat.id in taken.ids:
                self._touched.add(where.seat.conference)
                if not job.done.done():
                    token = tokens.get(where.seat.id)
                    job.done.set_result(Offer(msgspec.structs.replace(where, token=token), taken=True))
                continue
            self._memory.forget(where.seat.conference)
            if job.rounds >= _ROUNDS:
                _fail(job, NoClusterError(f"{cluster} is full or away", retry_after=_RETRY_AFTER))
            else:
                job.rounds += 1
                self._waiting.append(job)
        for cluster in {where.choice.cluster for _, where in seats}:
            self._clusters.learn(cluster, found.get(cluster))

    def _choose(self, visit: Visit, joined: Joined | None) -> Where:
        """Decide for one client; the chosen cluster counts as one participant fuller from here on."""
        if joined is None:
            raise ConferenceUnknownError(f"no conference {visit.conference}")
        if joined.state == "ending":
            raise ConferenceEndingError(f"conference {visit.conference} is being deleted")
        if joined.locked and not visit.returning:
            raise ConferenceLockedError(f"conference {visit.conference} is locked")
        template = self._memory.template(joined.template, joined.template_version)
        assert template is not None
        demand = self._demand(visit, joined, template)
        if visit.role not in demand.roles:
            there = ", ".join(demand.roles)
            raise RoleNotAllowedError(f"template {joined.template} has no role {visit.role}: {there}")
        decision = decide(
            self._clusters.board,
            demand.policy,
            demand.wish,
            Conference(id=joined.id, clusters=frozenset(joined.placements)),
            rng=self._rng,
            tried=visit.tried,
            everybody=visit.everybody,
            user=visit.user,
        )
        cluster = decision.cluster
        if cluster is None:
            raise NoClusterError(sentence(decision), retry_after=_RETRY_AFTER)
        self._clusters.board.candidates[cluster].participants += 1
        placed = joined.placements.get(cluster)
        if placed is not None and placed.state != "ready":
            placed = None
        return Where(
            choice=self._clusters.choices[cluster],
            decision=decision,
            seat=Seat(
                conference=joined.id,
                cluster=cluster,
                user=visit.user,
                id=reservations.new_id(),
                decision=pack(decision),
                epoch=None if placed is None else placed.epoch,
            ),
            placed=placed,
        )

    def _policy(self, name: str) -> Policy:
        found = self._policies.get(name)
        if found is None:
            _log.warning("placing.policy_unknown", policy=name)
            return self._policies[DEFAULT_POLICY]
        return found

    def _demand(self, visit: Visit, joined: Joined, template: Template) -> _Demand:
        key = (joined.template, joined.template_version, visit.region, visit.location, visit.latencies)
        known = self._demands.get(key)
        if known is None:
            if len(self._demands) >= _DEMANDS_KEPT:
                self._demands.clear()
            known = self._demands[key] = _Demand(
                self._policy(template.policy),
                tuple(rules.role for rules in template.roles),
                Wish(
                    region=visit.region,
                    location=visit.location,
                    latencies=visit.latencies,
                    modules=self._required.union(template.required_modules),
                    selector=tuple(sorted(template.selector.items())),
                    residency=frozenset(template.residency),
                ),
            )
        return known

    # --- what is remembered -------------------------------------------------------------------

    async def _learn_template(self, joined: Joined) -> None:
        if self._memory.template(joined.template, joined.template_version) is None:
            used = await self._store.read(templates.of_conference, joined.id)
            self._memory.keep_template(used.name, used.version, used.template)


def _make_tokens(seats: list[tuple[_Job, Where]], tokens: dict[int, RoomToken | None]) -> None:
    for job, where in seats:
        if job.meanwhile is not None and not job.done.done():
            tokens[where.seat.id] = job.meanwhile(where)


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
