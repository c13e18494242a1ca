"""Circuit breakers: a cluster that fails again and again is left alone for a while, so that it slows nobody.

`Breaker` is the state machine of one cluster, as a table; it owns no clock. `Breakers` keeps one for each
cluster that gave cause, and the time. Both live in one process: every replica learns by what it sees itself,
which costs a few calls more and needs nobody's agreement. A new start of the cluster is given a fresh chance.

    closed ──(too many failures in a row)──> open ──(rested)──> half-open ──(success)──> closed
                                              ^                     │
                                              └─────(failure)───────┘

Calls know in which life of the breaker they began: what comes of a call that began before the last change of
state says nothing any more, however late it comes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import structlog

from causeway.api import BreakerView
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from control.cascade_settings import BreakerSettings

__all__ = ["NEXT", "Breaker", "Breakers", "Call", "State"]

_log = structlog.get_logger(__name__)

_NO_LIFE: Final = -1

State: TypeAlias = Literal["closed", "open", "half-open"]
Event: TypeAlias = Literal["success", "failure", "last straw", "rested"]

NEXT: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        ("closed", "success"): "closed",
        ("closed", "failure"): "closed",
        ("closed", "last straw"): "open",
        ("open", "rested"): "half-open",
        ("half-open", "success"): "closed",
        ("half-open", "failure"): "open",
        ("half-open", "last straw"): "open",
    }
)
"""What is not in here cannot happen."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call under way: which cluster, and in which life of its breaker it began."""

    cluster: str
    start: str
    life: int


class Breaker:
    """The breaker of one cluster. Times are seconds on any clock that only goes forward."""

    def __init__(self, settings: BreakerSettings, backoff: Backoff | None = None) -> None:
        self._settings = settings
        # The floor is the first rest's whole length: jitter spreads what comes after it.
        self._rests = backoff or Backoff(
            base=2 * settings.rest_base, cap=settings.rest_cap, floor=settings.rest_base
        )
        self._state: State = "closed"
        self._life = 0
        self._probing = 0
        self.failures = 0
        """In a row."""
        self.error: str | None = None
        """What the last failure was."""
        self.changed_at = float("-inf")
        self.retry_at = float("-inf")
        """While open: when the rest is over."""

    def state(self, now: float) -> State:
        """Return the state, after taking note that a rest is over."""
        if self._state == "open" and now >= self.retry_at:
            self._move("rested", now)
        return self._state

    def admits(self, now: float) -> bool:
        """Say whether a call may begin."""
        match self.state(now):
            case "closed":
                return True
            case "half-open":
                return self._probing < self._settings.probes
            case "open":
                return False

    def begin(self, now: float) -> int:
        """Note that an admitted call begins; return the life that `end` is to be told.

        One that was admitted before the breaker opened does not count, whatever it comes to.
        """
        state = self.state(now)
        if state == "open":
            return _NO_LIFE
        if state == "half-open":
            self._probing += 1
        return self._life

    def end(self, life: int, now: float, *, error: str | None) -> None:
        """Note that a call that began in `life` succeeded, or failed with this error."""
        if life != self._life:
            return
        if self._state == "half-open":
            self._probing = max(0, self._probing - 1)
        if error is None:
            self._move("success", now)
            return
        self.failures += 1
        self.error = error
        self._move("last straw" if self.failures >= self._settings.failures else "failure", now)

    def drop(self, life: int) -> None:
        """Note that a call that began in `life` said nothing: it was cancelled, or fails by others' fault."""
        if life == self._life and self._state == "half-open":
            self._probing = max(0, self._probing - 1)

    def _move(self, event: Event, now: float) -> None:
        after = NEXT[self._state, event]
        if event == "success":
            self.failures, self.error = 0, None
            self._rests.reset()
        if after == self._state:
            return
        self._state, self._life, self._probing, self.changed_at = after, self._life + 1, 0, now
        if after == "open":
            self.retry_at = now + self._rests.next_delay()


class Breakers:
    """The breakers of all clusters, as this process sees them. `start`: which start of the deployment."""

    def __init__(self, settings: BreakerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._breakers: dict[str, tuple[str, Breaker]] = {}

    def admits(self, cluster: str, start: str) -> bool:
        """Say whether the cluster may be called."""
        known = self._of(cluster, start)
        return known is None or known.admits(self._clock())

    def begin(self, cluster: str, start: str) -> Call:
        """Note that the cluster is called; one of `succeeded`, `failed` and `dropped` has to follow."""
        known = self._of(cluster, start)
        return Call(cluster, start, 0 if known is None else known.begin(self._clock()))

    def succeeded(self, call: Call) -> bool:
        """Note that the cluster answered; return whether it had been left alone until now."""
        known = self._ended(call)
        if known is None:
            return False
        now = self._clock()
        before = known.state(now)
        known.end(call.life, now, error=None)
        healed = before != "closed" and known.state(now) == "closed"
        if healed:
            _log.info("breaker.closed", cluster=call.cluster)
        if known.failures == 0 and known.state(now) == "closed" and before == "closed":
            del self._breakers[
                call.cluster
            ]  # nothing worth remembering; calls under way began in life 0, too
        return healed

    def failed(self, call: Call, error: str) -> None:
        """Note that the cluster did not answer, or did not know what it said."""
        known = self._ended(call)
        if known is None:
            if call.cluster in self._breakers:
                return  # a former start of the deployment has failed
            known = Breaker(self._settings)
            self._breakers[call.cluster] = (call.start, known)
        now = self._clock()
        known.end(call.life, now, error=error)
        if known.state(now) == "open" and known.changed_at == now:
            _log.warning(
                "breaker.opened",
                cluster=call.cluster,
                failures=known.failures,
                error=error,
                rest=round(known.retry_at - now, 3),
            )

    def dropped(self, call: Call) -> None:
        """Note that nothing was learnt."""
        known = self._ended(call)
        if known is not None:
            known.drop(call.life)

    def rest_of(self, cluster: str, start: str) -> float:
        """Return in how many seconds the cluster may be called, as far as is known now."""
        known = self._of(cluster, start)
        if known is None or known.admits(self._clock()):
            return 0.0
        return max(self._settings.rest_base, known.retry_at - self._clock())

    def view(self, cluster: str) -> BreakerView | None:
        """Return what operators see; None: nothing is known against the cluster."""
        kept = self._breakers.get(cluster)
        if kept is None:
            return None
        now, (_, known) = self._clock(), kept
        state = known.state(now)
        wall = datetime.now(UTC)
        return BreakerView(
            state=state,
            since=None if known.changed_at < 0 else wall - timedelta(seconds=now - known.changed_at),
            failures=known.failures,
            error=known.error,
            retry_at=wall + timedelta(seconds=known.retry_at - now) if state == "open" else None,
        )

    def _of(self, cluster: str, start: str) -> Breaker | None:
        kept = self._breakers.get(cluster)
        if kept is None:
            return None
        if kept[0] != start:
            del self._breakers[cluster]
            return None
        return kept[1]

    def _ended(self, call: Call) -> Breaker | None:
        kept = self._breakers.get(call.cluster)
        return kept[1] if kept is not None and kept[0] == call.start else None
