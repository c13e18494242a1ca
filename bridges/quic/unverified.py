"""Connections whose peer has shown nothing yet: how many there are, in all and of each origin. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bridges.quic.gate import origin_of

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Unverified"]


class Unverified:
    """At most `most` connections, and `most_of_one` of each origin."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._origins: dict[Hashable, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._origins)

    @property
    def full(self) -> bool:
        """Whether there is room for nobody."""
        return len(self._origins) >= self._most

    def has_room_for(self, host: str) -> bool:
        """Return whether there may be one more from this address."""
        return not self.full and self._counts[origin_of(host)] < self._most_of_one

    def add(self, connection: Hashable, host: str) -> None:
        """Hold a connection."""
        self._origins[connection] = origin = origin_of(host)
        self._counts[origin] += 1

    def discard(self, connection: Hashable) -> None:
        """Hold a connection no more, if it is held."""
        origin = self._origins.pop(connection, None)
        if origin is None:
            return
        self._counts[origin] -= 1
        if not self._counts[origin]:
            del self._counts[origin]
