"""Makes the clusters follow the registry: claims marked conferences, plans, and has the actions carried out.

The only code that creates rooms, removes them and starts cascades. One conference is worked on by one process
at a time (its claim), and within it one action per subject (a room, a link, the conference) at a time.
Different subjects run side by side, and the conference is planned again whenever something in it changes: a
cluster that does not answer holds up nothing but itself. Actions are idempotent: whoever does this may have
died after acting and before noting it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from causeway.backoff import Backoff
from control.cascade.plan import next_look, plan
from control.cascade.view import CreateRoom, ForgetConference, ForgetLink, RemoveRoom, StartCascade
from control.errors import DatabaseUnavailableError
from control.registry import conferences, work

if TYPE_CHECKING:
    from datetime import datetime

    from control.bell import Bell
    from control.cascade.hands import Hands
    from control.cascade.view import Action, View
    from control.registry.conferences import Snapshot
    from control.registry.store import Store
    from control.registry.work import Claim
    from control.settings import ReconcileSettings

__all__ = ["Reconciler"]

_log = structlog.get_logger(__name__)

_PUT_OFF: Final = timedelta(seconds=0.2)
"""When to look again at an action that could not be begun."""

Subject: TypeAlias = tuple[str, ...]


class Reconciler:
    """Runs for the life of the process; `run` ends only by cancellation."""

    def __init__(self, store: Store, hands: Hands, bell: Bell, settings: ReconcileSettings) -> None:
        self._store = store
        self._hands = hands
        self._bell = bell
        self._settings = settings
        self._working: set[str] = set()
        self._calls: Counter[str] = Counter()
        """Actions under way, by cluster."""

    async def run(self) -> None:
        """Claim and work on whatever is due, now and for ever."""
        trouble = Backoff(base=0.2, cap=5.0)
        async with asyncio.TaskGroup() as group:
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

    async def _claim(self) -> list[Claim]:
        free = self._settings.max_conferences - len(self._working)
        if free <= 0:
            return []
        return await self._store.write(
            work.claim, limit=free, ttl=self._settings.claim_ttl, excluding=tuple(self._working)
        )

    async def _work(self, claim: Claim) -> None:
        """Bring one conference to where nothing is missing. What goes wrong stays in this conference."""
        try:
            await _Work(
                claim,
                store=self._store,
                hands=self._hands,
                bell=self._bell,
                settings=self._settings,
                calls=self._calls,
            ).run()
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

    def __init__(
        self,
        claim: Claim,
        *,
        store: Store,
        hands: Hands,
        bell: Bell,
        settings: ReconcileSettings,
        calls: Counter[str],
    ) -> None:
        self._claim = claim
        self._store = store
        self._hands = hands
        self._bell = bell
        self._settings = settings
        self._calls = calls
        self._under_way: dict[Subject, tuple[Action, asyncio.Task[None]]] = {}
        self._ended = False
        """Whether an action ended since it was last looked."""
        self._put_off: set[Subject] = set()
        """Could not be begun; left for the next claim, so that a busy cluster is not asked in a loop."""

    async def run(self) -> None:
        conference = self._claim.conference
        version: int | None = self._claim.version
        with self._bell.listening(conference) as changed:
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
            snapshot = await self._store.snapshot(conferences.load, self._claim.conference)
            if not self._ended:
                return snapshot

    def _begin(self, group: asyncio.TaskGroup, snapshot: Snapshot, changed: asyncio.Event) -> None:
        """Start what is due and can run beside what is under way."""
        for action in plan(snapshot.view, snapshot.now):
            subject = _subject(action)
            if subject in self._under_way or subject in self._put_off:
                continue
            if isinstance(action, ForgetConference) and self._under_way:
                continue
            if any(self._calls[c] >= self._settings.max_per_cluster for c in _called(action)):
                self._put_off.add(subject)
                continue
            # Counted here, not when the task begins to run: others look at the count before that.
            self._calls.update(_called(action))
            task = group.create_task(self._act(snapshot.view, action))
            self._under_way[subject] = (action, task)
            task.add_done_callback(partial(self._act_ended, action, changed))

    async def _act(self, view: View, action: Action) -> None:
        subject = _subject(action)
        try:
            if not await self._hands.do(view, action):
                self._put_off.add(subject)
        except DatabaseUnavailableError:
            self._put_off.add(subject)
        except Exception:  # noqa: BLE001 - a defect in one action must not stop the others; logged
            self._put_off.add(subject)
            _log.exception("action.failed", conference=view.conference, action=type(action).__name__)

    def _act_ended(self, action: Action, changed: asyncio.Event, _task: asyncio.Task[None]) -> None:
        """Take note that an action is over, however it ended, even if it never began to run."""
        for cluster in _called(action):
            self._calls[cluster] -= 1
            if self._calls[cluster] <= 0:
                del self._calls[cluster]
        del self._under_way[_subject(action)]
        self._ended = True
        changed.set()

    def _cancel_pointless(self, view: View) -> None:
        """Stop waiting for clusters that went offline, and for cascades of a conference that ends."""
        for action, task in self._under_way.values():
            gone = any(c not in view.clusters or not view.clusters[c].online for c in _called(action))
            if gone or (view.state == "ending" and isinstance(action, StartCascade)):
                task.cancel()

    async def _finish(self, snapshot: Snapshot, version: int) -> bool:
        """Give the claim back; False when there is a newer mark to be worked on first."""
        due: datetime | None = next_look(snapshot.view, snapshot.now)
        if self._put_off:
            soon = snapshot.now + _PUT_OFF
            due = soon if due is None else min(due, soon)
        return await self._store.write(work.finish, self._claim, version=version, due_at=due)


def _subject(action: Action) -> Subject:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return ("room", cluster)
        case StartCascade(dialer, listener) | ForgetLink(dialer, listener):
            return ("link", dialer, listener)
        case ForgetConference():
            return ("conference",)


def _called(action: Action) -> tuple[str, ...]:
    """Return the clusters that are asked something."""
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return (cluster,)
        case StartCascade(dialer, listener):
            return (dialer, listener)
        case ForgetLink() | ForgetConference():
            return ()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
