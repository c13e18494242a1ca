"""What the bridges have seen of links, and how much of it control has been told. Pure; a part of the core.

A link is up when all of its legs are, and down when one is known not to be; of others nothing is known yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridges.figures import sendable
from causeway.channel import LinkState, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridges.control.orders import Leg, LegState, Link

__all__ = ["Sightings"]


class _Seen(NamedTuple):
    """What a bridge said of a leg last."""

    state: LegState
    error: str


class Sightings:
    """The state of every leg that a bridge has spoken of. `legs` says which ones make up a link."""

    def __init__(self, legs: Callable[[Link], Sequence[Leg]]) -> None:
        self._legs = legs
        self._seen: dict[Leg, _Seen] = {}
        self._told: dict[Link, LinkState] = {}
        self._changed: set[Link] = set()

    def see(self, leg: Leg, state: LegState, error: str) -> None:
        """Take what a bridge says of a leg."""
        self._seen[leg] = _Seen(state, error)

    def forget_leg(self, leg: Leg, *, unless_up: bool = False) -> None:
        """Drop what is known of a leg; `unless_up`: a peer may hold it, and its link be desired again."""
        if not (unless_up and leg in self._seen and self._seen[leg].state == "up"):
            self._seen.pop(leg, None)

    def forget_link(self, link: Link) -> None:
        """Drop what was told of a link that nobody wants to hear of any more."""
        self._told.pop(link, None)
        self._changed.discard(link)

    def describe(self, link: Link) -> LinkState | None:
        """Return how a link is; None: nothing is known yet."""
        legs = self._legs(link)
        seen = [self._seen[leg] for leg in legs if leg in self._seen]
        down = any(each.state != "up" for each in seen)
        if not seen or not (down or len(seen) == len(legs)):
            return None
        errors = [
            f"{leg.kind}: {self._seen[leg].error}"
            for leg in legs
            if leg in self._seen and self._seen[leg].state != "up" and self._seen[leg].error
        ]
        return LinkState(
            conference=link.conference,
            peer=link.peer,
            state="down" if down else "up",
            error=sendable("; ".join(errors)) or None,
        )

    def note(self, link: Link) -> bool:
        """Remember to tell how a link is; return whether it is in another state than was told."""
        described, told = self.describe(link), self._told.get(link)
        if described is None or described == told:
            return False
        self._changed.add(link)
        return told is None or told.state != described.state

    def news(self) -> Report | None:
        """Return what was noted and is still another than was told; it counts as told. None: nothing."""
        changed, self._changed = sorted(self._changed), set()
        news = {
            link: described
            for link in changed
            if (described := self.describe(link)) is not None and described != self._told.get(link)
        }
        self._told |= news
        return Report(links=list(news.values())) if news else None

    def everything(self, links: Iterable[Link]) -> Report:
        """Return what is known of these links; it counts as told, and nothing else does."""
        self._changed = set()
        known = {link: described for link in sorted(links) if (described := self.describe(link)) is not None}
        self._told = known
        return Report(links=list(known.values()), full=True)
