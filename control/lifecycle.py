"""What state a cluster is in, and how far its drain has come. Pure: facts and a time in, words out.

Stored is only what an event wrote; what time alone changes is derived here, so that it is never late:

    stored         event            stored next
    (none)         register         online
    online         register         online          the same deployment again, or (epoch + 1) its next start
    lost           register         online          epoch + 1; by any deployment
    unregistered   register         online          epoch + 1; by any deployment
    lost           answer           online          epoch + 1; a cluster that is probed answers again
    online         expire           lost            the lease ran out
    online, lost   unregister       unregistered

    shown          when
    unregistered   stored
    lost           stored, or the lease has run out and nobody has written that down yet
    draining       an operator wants it empty
    suspect        a heartbeat is overdue by half an interval, or the last probe failed; the lease holds
    online         else

This module must not know the database, the API or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "NEXT",
    "Beats",
    "Event",
    "Facts",
    "Progress",
    "Shown",
    "ShownState",
    "StoredState",
    "drain_progress",
    "shown",
]

StoredState: TypeAlias = Literal["online", "lost", "unregistered"]
ShownState: TypeAlias = Literal["online", "suspect", "lost", "draining", "unregistered"]
Event: TypeAlias = Literal["register", "answer", "expire", "unregister"]
Progress: TypeAlias = Literal["running", "overdue", "done"]

NEXT: Final[dict[tuple[StoredState | None, Event], StoredState]] = {
    (None, "register"): "online",
    ("online", "register"): "online",
    ("lost", "register"): "online",
    ("unregistered", "register"): "online",
    ("lost", "answer"): "online",
    ("online", "expire"): "lost",
    ("online", "unregister"): "unregistered",
    ("lost", "unregister"): "unregistered",
}
"""What is not in the table changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the registry knows of a cluster's life."""

    state: StoredState
    since: datetime
    reason: str
    last_seen_at: datetime
    lease_expires_at: datetime
    probed: bool
    probe_failures: int
    probe_error: str | None
    drain_since: datetime | None
    drain_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A state, since when it holds, and why."""

    state: ShownState
    since: datetime
    reason: str


def shown(facts: Facts, now: datetime) -> Shown:
    """Return the state that the cluster is in at `now`."""
    if facts.state != "online":
        return Shown(state=facts.state, since=facts.since, reason=facts.reason)
    if facts.lease_expires_at <= now:
        return Shown(state="lost", since=facts.lease_expires_at, reason=silence(facts))
    if facts.drain_since is not None:
        return Shown(state="draining", since=facts.drain_since, reason=facts.drain_reason or "drained")
    overdue = overdue_at(facts)
    if facts.probed:
        if facts.probe_failures > 0:
            why = f"{facts.probe_failures} failed probes in a row: {facts.probe_error or 'no answer'}"
            return Shown(state="suspect", since=max(facts.last_seen_at, facts.since), reason=why)
    elif overdue < now:
        return Shown(state="suspect", since=max(overdue, facts.since), reason="its heartbeat is overdue")
    return Shown(state="online", since=facts.since, reason=facts.reason)


class Beats(Protocol):
    """When a cluster was heard last, and until when that is enough."""

    @property
    def last_seen_at(self) -> datetime:
        """The last heartbeat, or whatever else was heard."""
        ...

    @property
    def lease_expires_at(self) -> datetime:
        """When its lease runs out."""
        ...


def overdue_at(facts: Beats) -> datetime:
    """Return when a heartbeat is overdue: after one and a half of the three intervals of a lease."""
    return facts.last_seen_at + (facts.lease_expires_at - facts.last_seen_at) / 2


def silence(facts: Facts) -> str:
    """Say why a lease ran out."""
    if facts.probed and facts.probe_failures == 0:
        return "it was not probed in time"
    if facts.probed:
        return f"{facts.probe_failures} failed probes in a row: {facts.probe_error or 'no answer'}"
    return "no heartbeat until its lease ran out"


def drain_progress(
    *, participants: int, conferences: int, deadline: datetime | None, now: datetime
) -> Progress:
    """Return how far a drain has come: nothing left, time left, or neither."""
    if participants == 0 and conferences == 0:
        return "done"
    return "overdue" if deadline is not None and deadline <= now else "running"
