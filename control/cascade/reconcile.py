"""Makes the clusters follow the registry: claims marked conferences, plans, and has the actions carried out.

The only code that creates rooms, removes them, starts cascades and ends them. One conference is worked on by
one process at a time (its claim), and within it one action per subject (a room, a link, an agent's place, the
conference) at a time. Different subjects run side by side, and the conference is planned again whenever
something in it changes. Actions are idempotent: whoever does this may have died after acting and before
noting it.

A cluster that does not answer holds up nothing but itself: it gets a bounded number of calls at a time, as
does every pair of clusters; what is beyond that is put off, longer each time. When it fails again and again
it is left alone (control.cascade.breaker), and what needs it is not even due.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from causeway.backoff import Backoff
from control.cascade.plan import next_look, plan, takes_long, topology_of
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
from control.errors import DatabaseUnavailableError
from control.gathering import Gathering
from control.registry import cascade_view, work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from control.bell import Bell
    from control.cascade.breaker import Breakers, Call
    from control.cascade.hands import Hands
    from control.cascade.view import Action, View
    from control.registry.cascade_view import Snapshot
    from control.registry.store import Store
    from control.registry.work import Claim
    from control.settings import ReconcileSettings

__all__ = ["Reconciler", "with_breakers"]

_log = structlog.get_logger(__name__)

_PUT_OFF: Final = 0.1
"""Seconds, the least; when to look again at an action that could not be begun."""
_PUT_OFF_CAP: Final = 2.0
_PAIR_SHARE: Final = 4
"""Of the calls that a cluster gets at a time, the share that may be about one and the same other cluster."""

Subject: TypeAlias = tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Means:
    """What all conferences that this process works on share."""

    store: Store
    hands: Hands
    bell: Bell
    breakers: Breakers
    settings: ReconcileSettings
    idle_grace: float
    looks: Gathering[str, str | None]
    """Views, by conference, as they are read."""
    ends: Gathering[work.Finish, bool]
    """Claims to be given back."""
    calls: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Actions under way, by cluster and by pair of clusters."""
    thinking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Plans that take long, beside the event loop: one at a time, as they share its processor."""
    put_offs: dict[str, Backoff] = field(default_factory=dict)
    """By conference, while something in it cannot be begun."""


class Reconciler:
    """Runs for the life of the process; `run` ends only by cancellation."""

    def __init__(
        self,
        store: Store,
        hands: Hands,
        bell: Bell,
        breakers: Breakers,
        *,
        settings: ReconcileSettings,
        idle_grace: float,
        replica: UUID | None = None,
    ) -> None:
        self._store = store
        self._bell = bell
        self._settings = settings
        self._replica = replica
        """Whose claims they are: when this process dies, others give them back."""
        self._means = _Means(
            store=store,
            hands=hands,
            bell=bell,
            breakers=breakers,
            settings=settings,
            idle_grace=idle_grace,
            looks=Gathering(self._look_at),
            ends=Gathering(self._give_back),
        )
        self._working: set[str] = set()

    async def run(self) -> None:
        """Claim and work on whatever is due, now and for ever."""
        trouble = Backoff(base=0.2, cap=5.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._means.looks.run())
            group.create_task(self._means.ends.run())
            while True:
                self._bell.any.clear()
                try:
                    claims = await self._claim()
                except DatabaseUnavailableError as error:
                    _log.warning("reconcile.database_unavailable", error=error.detail)
                    await asyncio.sleep(trouble.next_delay())
                    continue
                trouble.reset()
                for claim in claims:
                    self._working.add(claim.conference)
                    group.create_task(self._work(claim))
                if not claims or len(self._working) >= self._settings.max_conferences:
                    await _wait(self._bell.any, self._settings.poll_interval)

    async def _look_at(self, conferences: Sequence[str]) -> list[str | None]:
        found = await self._store.read(cascade_view.texts, conferences)
        return [found.get(conference) for conference in conferences]

    async def _give_back(self, done: Sequence[work.Finish]) -> list[bool]:
        given = await self._store.write(work.finish_all, done)
        return [each.held.conference in given for each in done]

    async def _claim(self) -> list[Claim]:
        free = self._settings.max_conferences - len(self._working)
        if free <= 0:
            return []
        return await self._store.read(
            work.claim,
            limit=free,
            ttl=self._settings.claim_ttl,
            excluding=tuple(self._working),
            replica=self._replica,
        )

    async def _work(self, claim: Claim) -> None:
        """Bring one conference to where nothing is missing. What goes wrong stays in this conference."""
        try:
            await _Work(claim, self._means).run()
        except* DatabaseUnavailableError:
            _log.warning("reconcile.interrupted", conference=claim.conference)
        except* Exception:  # noqa: BLE001 - a defect met in one conference must not stop the others; logged
            _log.exception("reconcile.failed", conference=claim.conference)
        finally:
            # An interrupted claim is not given back: it runs out, which is the pause before the next try.
            self._working.discard(claim.conference)
            self._bell.any.set()


class _Work:
    """One claimed conference, until nothing is missing in it or the claim is gone."""

    def __init__(self, claim: Claim, means: _Means) -> None:
        self._claim = claim
        self._means = means
        self._store = means.store
        self._settings = means.settings
        self._under_way: dict[Subject, tuple[Action, asyncio.Task[None]]] = {}
        self._open: dict[Subject, Call] = {}
        """Calls under way whose breakers have not been told how they ended."""
        self._ended = False
        """Whether an action ended since it was last looked."""
        self._put_off: set[Subject] = set()
        """Could not be begun; left for the next claim, so that a busy cluster is not asked in a loop."""

    async def run(self) -> None:
        conference = self._claim.conference
        version: int | None = self._claim.version
        with self._means.bell.listening(conference) as changed:
            async with asyncio.TaskGroup() as group:
                while version is not None:
                    changed.clear()
                    snapshot = await self._look()
                    if snapshot is None:
                        break
                    self._cancel_pointless(snapshot.view)
                    self._begin(group, snapshot, changed)
                    if not self._under_way and await self._finish(snapshot, version):
                        return
                    if self._under_way:
                        await _wait(changed, self._settings.claim_ttl / 3)
                    # The version is read before the rows: a mark in between is worked on twice, not never.
                    version = await self._store.write(work.renew, self._claim, ttl=self._settings.claim_ttl)
                for _, task in self._under_way.values():
                    task.cancel()

    async def _look(self) -> Snapshot | None:
        """Read the conference as it is after every action that is not under way any more.

        A snapshot that was taken before an action's outcome was noted, and arrives after it has ended, would
        have the same action done once more.
        """
        while True:
            self._ended = False
            snapshot = await self._snapshot()
            if not self._ended:
                return snapshot

    async def _snapshot(self) -> Snapshot | None:
        """Read the conference, and have what takes long about its plan worked out beside the event loop."""
        found = await self._means.looks.ask(self._claim.conference)
        if found is None:
            return None
        snapshot = cascade_view.read(self._claim.conference, found, idle_grace=self._means.idle_grace)
        snapshot = with_breakers(snapshot, self._means.breakers)
        if takes_long(snapshot.view):
            async with self._means.thinking:
                await asyncio.to_thread(topology_of, snapshot.view, snapshot.now)
        return snapshot

    def _begin(self, group: asyncio.TaskGroup, snapshot: Snapshot, changed: asyncio.Event) -> None:
        """Start what is due and can run beside what is under way."""
        for action in plan(snapshot.view, snapshot.now):
            subject = _subject(action)
            if subject in self._under_way or subject in self._put_off:
                continue
            if isinstance(action, ForgetConference) and self._under_way:
                continue
            called = _called(action)
            if not self._has_room(called) or not self._admitted(called, snapshot):
                self._put_off.add(subject)
                continue
            # Counted here, not when the task begins to run: others look at the count before that.
            self._means.calls.update(_counted(called))
            if called:
                self._open[subject] = self._means.breakers.begin(
                    called[0], snapshot.starts.get(called[0], "")
                )
            task = group.create_task(self._act(snapshot.view, action))
            self._under_way[subject] = (action, task)
            task.add_done_callback(partial(self._act_ended, action, changed))

    def _has_room(self, called: tuple[str, ...]) -> bool:
        """Say whether one more call may be made to the cluster, and about the same other one."""
        most = self._settings.max_per_cluster
        limits = (most, max(1, most // _PAIR_SHARE))
        return all(self._means.calls[key] < limits[len(key) - 1] for key in _counted(called))

    def _admitted(self, called: tuple[str, ...], snapshot: Snapshot) -> bool:
        """Say whether the cluster's breaker lets it be called; it may have opened since the view was read."""
        return not called or self._means.breakers.admits(called[0], snapshot.starts.get(called[0], ""))

    async def _act(self, view: View, action: Action) -> None:
        subject = _subject(action)
        try:
            outcome = await self._means.hands.do(view, action)
        except DatabaseUnavailableError:
            self._put_off.add(subject)
            return
        except Exception:  # noqa: BLE001 - a defect in one action must not stop the others; logged
            self._put_off.add(subject)
            _log.exception("action.failed", conference=view.conference, action=type(action).__name__)
            return
        if not outcome.begun:
            self._put_off.add(subject)
        call = self._open.pop(subject, None)
        if call is None:
            return
        match outcome.answered:
            case None:
                self._means.breakers.dropped(call)
            case False:
                self._means.breakers.failed(call, outcome.fault)
            case True:
                if self._means.breakers.succeeded(call):
                    # What was held up all over the cluster need not wait for its time.
                    with suppress(DatabaseUnavailableError):
                        await self._store.write(work.mark_cluster, call.cluster)

    def _act_ended(self, action: Action, changed: asyncio.Event, _task: asyncio.Task[None]) -> None:
        """Take note that an action is over, however it ended, even if it never began to run."""
        for key in _counted(_called(action)):
            self._means.calls[key] -= 1
            if self._means.calls[key] <= 0:
                del self._means.calls[key]
        subject = _subject(action)
        call = self._open.pop(subject, None)
        if call is not None:
            self._means.breakers.dropped(call)
        del self._under_way[subject]
        self._ended = True
        changed.set()

    def _cancel_pointless(self, view: View) -> None:
        """Stop waiting for clusters that went offline, and for cascades of a conference that ends."""
        for action, task in self._under_way.values():
            gone = any(c not in view.clusters or not view.clusters[c].online for c in _called(action)[:1])
            if gone or (view.state == "ending" and isinstance(action, FetchBridges | StartCascade)):
                task.cancel()

    async def _finish(self, snapshot: Snapshot, version: int) -> bool:
        """Give the claim back; False when there is a newer mark to be worked on first."""
        due = next_look(snapshot.view, snapshot.now)
        conference = self._claim.conference
        if self._put_off:
            patience = self._means.put_offs.setdefault(
                conference, Backoff(base=2 * _PUT_OFF, cap=_PUT_OFF_CAP, floor=_PUT_OFF)
            )
            soon = snapshot.now + timedelta(seconds=patience.next_delay())
            due = soon if due is None else min(due, soon)
        else:
            self._means.put_offs.pop(conference, None)
        return await self._means.ends.ask(work.Finish(held=self._claim, version=version, due_at=due))


def with_breakers(snapshot: Snapshot, breakers: Breakers) -> Snapshot:
    """Return the snapshot with what this process knows against the clusters.

    Those who wait for a cluster look again at different times, so that it does not get all at once what it
    could not bear before.
    """
    left_alone = {
        name: breakers.rest_of(name, start)
        for name, start in snapshot.starts.items()
        if not breakers.admits(name, start)
    }
    if not left_alone:
        return snapshot
    clusters = {
        name: facts
        if name not in left_alone
        else replace(
            facts,
            breaker_open=True,
            breaker_until=snapshot.now + timedelta(seconds=left_alone[name] * random.uniform(1.0, 2.0)),  # noqa: S311 - no secret
        )
        for name, facts in snapshot.view.clusters.items()
    }
    return replace(snapshot, view=replace(snapshot.view, clusters=clusters))


def _subject(action: Action) -> Subject:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster) | ForgetPlacement(cluster):
            return ("room", cluster)
        case (
            FetchBridges(dialer, listener)
            | StartCascade(dialer, listener)
            | StopCascade(dialer, listener)
            | ForgetLink(dialer, listener)
        ):
            return ("link", *sorted((dialer, listener)))
        case AssignAgent(cluster, kind) | UnassignAgent(cluster, kind):
            return ("agent", cluster, kind)
        case MoveClients(cluster):
            return ("clients", cluster)
        case ForgetConference():
            return ("conference",)


def _called(action: Action) -> tuple[str, ...]:
    """Return the cluster that is asked something, and the one that it is asked about."""
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return (cluster,)
        case FetchBridges(dialer, listener):
            return (listener, dialer)
        case StartCascade(dialer, listener) | StopCascade(dialer, listener):
            return (dialer, listener)
        case _:
            return ()


def _counted(called: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what a call counts as: one to the cluster, and one to it about the other."""
    return tuple(called[: length + 1] for length in range(len(called)))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
