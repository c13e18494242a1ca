"""The life of a worker of an OWT cluster: it joins, gives signs of life, reports its load, and joins again.

Sans-IO: the shell says what it heard and what time it is, and performs the orders. The cluster manager
forgets a worker whose signs of life it misses, and so does one that has just been started: both answer a sign
of life with `whoareyou`. Only when the manager *announces* that this worker is gone have the conference nodes
been told, and have removed everything that came through it: that, and nothing else, makes the worker begin
anew (`Left`, later `Entered`). A broker that was away costs nothing but time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Cast", "Entered", "Heard", "Left", "Membership", "Order", "State"]


class State(Enum):
    """How the worker and its cluster manager are."""

    OUTSIDE = auto()
    """No broker, and no membership to come back to."""
    JOINING = auto()
    """At the broker; the manager has not taken the worker in yet."""
    MEMBER = auto()
    """At the broker, and taken in."""
    AWAY = auto()
    """Taken in, but the broker is not there."""
    CHECKING = auto()
    """Back at the broker; the manager may have forgotten the worker meanwhile."""


class Heard(Enum):
    """What the shell hears."""

    CONNECTED = auto()
    DISCONNECTED = auto()
    TAKEN_IN = auto()
    """The answer to `join`."""
    KNOWN = auto()
    """The answer to `keepAlive`: ok."""
    UNKNOWN = auto()
    """The answer to `keepAlive`: whoareyou."""
    REMOVED = auto()
    """The manager announces to everybody that this worker is gone."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call the cluster manager; what it answers is to be heard, that it does not answer is not."""

    method: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Cast:
    """Tell the cluster manager, which does not answer."""

    method: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Entered:
    """Begin: the cluster knows the worker and has nothing of it."""


@dataclass(frozen=True, slots=True)
class Left:
    """End what there is: the cluster has removed everything that came through the worker."""


Order = Call | Cast | Entered | Left

_TABLE: Final[dict[tuple[State, Heard], State]] = {
    (State.OUTSIDE, Heard.CONNECTED): State.JOINING,
    (State.JOINING, Heard.DISCONNECTED): State.OUTSIDE,
    (State.JOINING, Heard.TAKEN_IN): State.MEMBER,
    (State.MEMBER, Heard.DISCONNECTED): State.AWAY,
    (State.MEMBER, Heard.UNKNOWN): State.JOINING,
    (State.MEMBER, Heard.REMOVED): State.JOINING,
    (State.AWAY, Heard.CONNECTED): State.CHECKING,
    (State.CHECKING, Heard.DISCONNECTED): State.AWAY,
    (State.CHECKING, Heard.KNOWN): State.MEMBER,
    (State.CHECKING, Heard.UNKNOWN): State.JOINING,
    (State.CHECKING, Heard.REMOVED): State.JOINING,
}
"""What is not in the table changes nothing: late answers, mostly."""

_MAX_TASKS: Final = 10_000

_ASKING: Final[dict[State, str]] = {
    State.JOINING: "join",
    State.MEMBER: "keepAlive",
    State.CHECKING: "keepAlive",
}
"""What is asked on entering a state, and again after every interval."""


class Membership:
    """One worker. `info` is what it says of itself when it joins."""

    def __init__(
        self,
        *,
        purpose: str,
        worker_id: str,
        info: dict[str, Any],
        keep_alive_interval: float = 0.8,
        report_load_interval: float = 1.0,
    ) -> None:
        self.state = State.OUTSIDE
        self.entered = False
        """Whether the cluster may have something that came through the worker."""
        self.tasks: dict[str, None] = {}
        """What the cluster gave the worker to do, oldest first; the manager keeps count of it, too."""
        self._join: Final = Call("join", [purpose, worker_id, info])
        self._id: Final = worker_id
        self._interval: Final = keep_alive_interval
        self._load_interval: Final = report_load_interval
        self._ask_at = 0.0
        self._load_at = 0.0
        self._load: float | None = None

    @property
    def next_at(self) -> float | None:
        """When `tick` has something to do, at the latest; None while only news can change anything."""
        if self.state not in _ASKING:
            return None
        return min(self._ask_at, self._load_at) if self.state is State.MEMBER else self._ask_at

    def hear(self, heard: Heard, now: float) -> list[Order]:
        """Take news, `now` in seconds of any monotonic clock, and return what is to be done, in order."""
        orders: list[Order] = []
        if heard is Heard.REMOVED and self.entered:
            self.entered = False
            self.tasks.clear()
            orders.append(Left())
        before, self.state = self.state, _TABLE.get((self.state, heard), self.state)
        if self.state is before:
            return orders
        if self.state is State.MEMBER:
            self._ask_at = now + self._interval
            if before is State.JOINING:
                orders += self._taken_in(now)
        elif self.state in _ASKING:
            orders.append(self._ask(now))
        return orders

    def tick(self, now: float, load: Callable[[], float]) -> list[Order]:
        """Return what is due; `load` returns how busy the worker is, from 0 to 1."""
        orders: list[Order] = []
        if self.state in _ASKING and now >= self._ask_at:
            orders.append(self._ask(now))
        if self.state is State.MEMBER and now >= self._load_at:
            self._load_at = now + self._load_interval
            value = round(min(1.0, max(0.0, load())), 2)
            if value != self._load:
                self._load = value
                orders.append(Cast("reportLoad", [self._id, value]))
        return orders

    def take_task(self, task: str) -> list[Order]:
        """Note that the worker has something to do."""
        if task in self.tasks:
            return []
        self.tasks[task] = None
        orders = self._tell("pickUpTasks", [task])
        if len(self.tasks) > _MAX_TASKS:
            # OWT does not take back everything that it gives.
            orders += self.drop_task(next(iter(self.tasks)))
        return orders

    def drop_task(self, task: str) -> list[Order]:
        """Note that this is done."""
        if task not in self.tasks:
            return []
        del self.tasks[task]
        return self._tell("layDownTask", task)

    def quit(self) -> list[Order]:
        """Return what is to be said before the worker goes for good."""
        return self._tell("quit")

    def _taken_in(self, now: float) -> list[Order]:
        self._load, self._load_at = None, now
        orders: list[Order] = []
        if self.tasks:
            orders += self._tell("pickUpTasks", list(self.tasks))
        if not self.entered:
            self.entered = True
            orders.append(Entered())
        return orders

    def _ask(self, now: float) -> Call:
        self._ask_at = now + self._interval
        return self._join if _ASKING[self.state] == "join" else Call("keepAlive", [self._id])

    def _tell(self, method: str, *args: Any) -> list[Order]:
        return [Cast(method, [self._id, *args])] if self.state is State.MEMBER else []
