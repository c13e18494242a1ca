"""Which session of a peer and a room may speak to our conference node, and what the node is told when.

The rules, whatever the streams do:
- one session per (peer, room) is current, the one opened last; only its events reach the node;
- before a new session is announced, the node is told that the old one is gone, and nothing of it afterwards;
- what waits for the node is bounded: events by `max_queued`, everything else by these rules.

Pure bookkeeping: whoever performs the orders (bridges.event.delivery) takes them one after the other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Announce", "Deliver", "Feed", "Order", "SessionTable", "Withdraw"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Announce(Generic[S]):
    """Tell the node that the session is there (it answers with `initialize` for the peer)."""

    session: S


@dataclass(frozen=True, slots=True)
class Deliver(Generic[S]):
    """Hand the node an event of the session."""

    session: S
    event: Any


@dataclass(frozen=True, slots=True)
class Withdraw(Generic[S]):
    """Tell the node that the session is gone, and with it everything that came from the peer."""

    session: S


Order = Announce[S] | Deliver[S] | Withdraw[S]


class Feed(Generic[S]):
    """The orders for the node that concern one (peer, room)."""

    def __init__(self, *, max_queued: int) -> None:
        self.current: S | None = None
        self._max_queued = max_queued
        self._told: S | None = None
        """The session that the node has heard of, or is hearing of right now."""
        self._orders: deque[Order[S]] = deque()

    def __len__(self) -> int:
        return len(self._orders)

    def waiting(self) -> list[Any]:
        """Return the events that wait, oldest first."""
        return [order.event for order in self._orders if isinstance(order, Deliver)]

    def begin(self, session: S) -> S | None:
        """Make `session` the current one and return the one that it supersedes."""
        superseded = self.current
        self._withdraw()
        self.current = session
        self._orders.append(Announce(session))
        return superseded

    def event(self, session: S, event: Any) -> bool:
        """Queue an event; False when too many wait. Events of a session that is not current are dropped."""
        if session is not self.current:
            return True
        if len(self._orders) >= self._max_queued:
            return False
        self._orders.append(Deliver(session, event))
        return True

    def end(self, session: S) -> None:
        """Take note that a session is over; of no effect for one that is not current."""
        if session is self.current:
            self.current = None
            self._withdraw()

    def forget(self) -> None:
        """Drop every order: the node has forgotten us."""
        self._orders.clear()
        self._told = None

    def take(self) -> Order[S] | None:
        """Return the next order; it counts as performed."""
        if not self._orders:
            return None
        order = self._orders.popleft()
        self._told = None if isinstance(order, Withdraw) else order.session
        return order

    def _withdraw(self) -> None:
        """Replace what waits by one Withdraw, if the node has heard of a session."""
        waiting = next((order for order in self._orders if isinstance(order, Withdraw)), None)
        self._orders.clear()
        if waiting is not None:
            self._orders.append(waiting)
        elif self._told is not None:
            self._orders.append(Withdraw(self._told))


class SessionTable(Generic[S]):
    """The feeds by (peer, room). A feed exists while it has a current session or orders."""

    def __init__(self, *, max_queued: int) -> None:
        self._max_queued = max_queued
        self._feeds: dict[tuple[str, str], Feed[S]] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[tuple[tuple[str, str], Feed[S]]]:
        return iter(list(self._feeds.items()))

    def find(self, peer: str, room: str) -> Feed[S] | None:
        """Return the feed of a peer and a room, None if there is none."""
        return self._feeds.get((peer, room))

    def current(self, peer: str, room: str) -> S | None:
        """Return the current session of a peer and a room."""
        feed = self._feeds.get((peer, room))
        return None if feed is None else feed.current

    def sessions(self) -> list[S]:
        """Return every current session."""
        return [feed.current for feed in self._feeds.values() if feed.current is not None]

    def feed(self, peer: str, room: str) -> Feed[S]:
        """Return the feed of a peer and a room, made if there is none."""
        feed = self._feeds.get((peer, room))
        if feed is None:
            feed = self._feeds[peer, room] = Feed(max_queued=self._max_queued)
        return feed

    def tidy(self, peer: str, room: str) -> None:
        """Drop a feed that has neither session nor orders."""
        feed = self._feeds.get((peer, room))
        if feed is not None and feed.current is None and not len(feed):
            del self._feeds[peer, room]
