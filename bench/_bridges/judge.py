"""Whether what a cluster was told of another one is what happened there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench._bridges.happenings import Happenings, Occupancy

if TYPE_CHECKING:
    from random import Random

__all__ = ["Hearing", "Origin", "UnfaithfulError"]

Event = dict[str, Any]


class UnfaithfulError(AssertionError):
    """Something came that should not have, or not then."""


class Origin:
    """A conference at the cluster where it happens, with all that happened."""

    def __init__(self, cluster: str, room: str, random: Random) -> None:
        self.name = f"{room} of {cluster}"
        self.happenings = Happenings(cluster, room, random)
        self.told: list[Event] = []
        self._after = {self.happenings.now.digest(): [0]}

    def happen(self) -> Event:
        """Let something happen and return it."""
        event = self.happenings.next()
        self.told.append(event)
        self._after.setdefault(self.happenings.now.digest(), []).append(len(self.told))
        return event

    def moments(self, state: Occupancy) -> list[int]:
        """Return after how many events there was such a state."""
        return self._after.get(state.digest(), [])


class Hearing:
    """What one cluster was told of a conference elsewhere. `take` every event in the order of telling.

    Exactly once and in order: after an `initialize`, which must be a state that there was, each event is the
    one that happened next. Further ones, and disconnections, are counted as `resets`; whether there may be
    any is for the caller to say.
    """

    def __init__(self, origin: Origin) -> None:
        self.state = Occupancy()
        self.resets = 0
        self.heard = 0
        """Events that came, `initialize` not counted."""
        self._origin = origin
        self._next: list[int] = []
        """Numbers of the event that may come now: after an `initialize`, one for each such state."""

    def take(self, event: Event) -> None:
        """Take what the node was told. Raises UnfaithfulError."""
        if event["type"] == "onCascadingDisconnected":
            self.resets += 1
            self._next = []
            self.state.apply(event)
        elif event["type"] == "initialize":
            self.resets += bool(self._next)
            self.state.apply(event)
            self._next = list(self._origin.moments(self.state))
            if not self._next:
                raise UnfaithfulError(f"{self._origin.name}: an `initialize` of a state that never was")
        else:
            self._take_next(event)
            self.state.apply(event)

    def _take_next(self, event: Event) -> None:
        told = self._origin.told
        follows = [number + 1 for number in self._next if number < len(told) and told[number] == event]
        if not follows:
            number = told.index(event) if event in told else None
            raise UnfaithfulError(
                f"{self._origin.name}: event {number}, {event}, came instead of {self._next}"
            )
        self._next = follows
        self.heard += 1

    @property
    def began(self) -> bool:
        """Whether there was an `initialize`, and no disconnection since."""
        return bool(self._next)

    @property
    def behind(self) -> int:
        """Events that happened and were not told yet."""
        return len(self._origin.told) - max(self._next, default=0)

    def check_equal(self) -> None:
        """Raise UnfaithfulError unless all was told and both ends are equal."""
        if self.behind:
            raise UnfaithfulError(f"{self._origin.name}: {self.behind} events are missing")
        if self.state.digest() != self._origin.happenings.now.digest():
            raise UnfaithfulError(f"{self._origin.name}: the states differ")
