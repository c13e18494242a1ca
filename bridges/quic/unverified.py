"""Connections whose peer has shown nothing yet: how many there are, in all and of each origin. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

from bridges.quic.gate import origin_of

__all__ = ["Unverified"]

C = TypeVar("C")


class Unverified(Generic[C]):
    """At most `most` connections, and `most_of_one` of each origin.

    An origin that has its share gets no more. When all places are taken the oldest connection gives way: an
    honest peer shows its token within moments, so whoever has sat there for longest is the least likely one.
    """

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._origins: dict[C, str] = {}
        """In the order in which they came."""
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._origins)

    def has_share_for(self, host: str) -> bool:
        """Return whether there may be one more from this address."""
        return self._counts[origin_of(host)] < self._most_of_one

    def in_the_way(self) -> C | None:
        """Return the connection that has to go for one more to come; None if there is room."""
        return next(iter(self._origins)) if len(self._origins) >= self._most else None

    def add(self, connection: C, host: str) -> None:
        """Hold a connection."""
        self._origins[connection] = origin = origin_of(host)
        self._counts[origin] += 1

    def discard(self, connection: C) -> None:
        """Hold a connection no more, if it is held."""
        origin = self._origins.pop(connection, None)
        if origin is None:
            return
        self._counts[origin] -= 1
        if not self._counts[origin]:
            del self._counts[origin]
