"""What a bridge counts, and the interface by which it is asked for it.

The figures themselves are types of the API (causeway.api.figures), so that what a bridge measures is what
control stores and a person reads. Here is what fills them: a Tally for each link, which outlives the link's
connections, Counters for what was refused, and the protocols of those who have something to tell. Neither
wires nor nodes nor QUIC are known here; nothing waits, and reading never changes anything.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec import structs

from causeway.api.figures import BridgeFigures, LinkFigures, OriginFigures, PeerFigures

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BridgeFigures",
    "Counters",
    "LinkFigures",
    "LinkKey",
    "OriginFigures",
    "PeerFigures",
    "Source",
    "Tallies",
    "Tally",
    "everything",
    "named",
    "sendable",
]

_MAX_TEXT: Final = 500
_MAX_NAME: Final = 256


LinkKey: TypeAlias = tuple[str, str]
"""The other cluster, and the conference."""


class Source(Protocol):
    """A bridge. Whoever has thousands of links asks for some at a time, and lets others work in between."""

    def overview(self) -> BridgeFigures:
        """Return everything but the links, of this moment."""

    def link_keys(self) -> list[LinkKey]:
        """Return which links are wanted or there, in order."""

    def link_figures(self, keys: Sequence[LinkKey]) -> list[LinkFigures]:
        """Return the figures of these links, of this moment; those that are gone are left out."""


def everything(source: Source) -> BridgeFigures:
    """Return all figures of a bridge at once."""
    return structs.replace(source.overview(), links=source.link_figures(source.link_keys()))


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted of one link. Whoever moves the bytes adds; nobody takes away.

    The fields are those of LinkFigures with the same names, and mean what is said there. `up` and `down`
    keep the time; everything else is plain addition.
    """

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    drops: int = 0
    duplicates: int = 0
    connects: int = 0
    resumes: int = 0
    snapshots: int = 0
    divergences: int = 0
    datagrams_lost: int = 0
    datagrams_repeated: int = 0
    datagrams_parity: int = 0
    datagrams_recovered: int = 0
    is_up: bool = False
    since: datetime | None = None
    error: str = ""

    def up(self, *, now: datetime | None = None) -> None:
        """Note that the link came up, or came up anew on another stream."""
        self.connects += 1
        self.is_up, self.since = True, now or datetime.now(UTC)

    def down(self, error: str, *, now: datetime | None = None) -> None:
        """Note that the link is down, and why; told again it changes the reason only."""
        if self.is_up or self.since is None:
            self.since = now or datetime.now(UTC)
        self.is_up, self.error = False, error

    @property
    def reconnects(self) -> int:
        """Times that the link came up after the first."""
        return max(0, self.connects - 1)


class Tallies:
    """The tallies of a bridge's links, by peer and conference; beyond `max_entries` the oldest are forgotten.

    A tally stays when its link breaks and when it is given up, until its conference is gone: a link that
    flaps is to be seen.
    """

    def __init__(self, *, max_entries: int) -> None:
        self._max_entries = max_entries
        self._tallies: OrderedDict[tuple[str, str], Tally] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tallies)

    def of(self, peer: str, conference: str) -> Tally:
        """Return the tally of a link, made if there is none."""
        tally = self._tallies.get((peer, conference))
        if tally is None:
            tally = self._tallies[peer, conference] = Tally()
            while len(self._tallies) > self._max_entries:
                self._tallies.popitem(last=False)
        return tally

    def get(self, peer: str, conference: str) -> Tally | None:
        """Return the tally of a link, None if nothing was counted of it."""
        return self._tallies.get((peer, conference))

    def forget(self, conference: str) -> None:
        """Drop what was counted of a conference."""
        for key in [key for key in self._tallies if key[1] == conference]:
            del self._tallies[key]


class Counters:
    """How often something was refused, by name. Names are ours, never a peer's; they are bounded anyway."""

    MAX_NAMES: Final = 200
    OTHER: Final = "other"

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter. Name it like the error that the peer is told: `token_refused`, `framing`."""
        known = name in self._counts or len(self._counts) < self.MAX_NAMES
        self._counts[name if known else self.OTHER] += by

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """Return what is not zero, by name in order."""
        return {name: count for name, count in sorted(self._counts.items()) if count}


def sendable(text: str) -> str:
    """Return a text, which may be a peer's or a node's, as figures and reports take it."""
    return text.replace("\x00", "").encode(errors="replace").decode()[:_MAX_TEXT]


def named(name: str) -> str:
    """Return a cluster's or conference's id, which may be what a peer says of itself, as figures take it."""
    return sendable(name)[:_MAX_NAME]
