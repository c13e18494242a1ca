"""How long a peer takes to answer, as QUIC measures it anyway."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["RoundTrip", "patience"]

_LEAST: Final = 0.2
_MOST: Final = 1.0


class RoundTrip(NamedTuple):
    """Smoothed over the connection's life (RFC 9002 section 5.3)."""

    seconds: float
    variation: float
    """Mean deviation, seconds."""


def patience(round_trip: RoundTrip | None) -> float:
    """Return how many seconds a living peer may take to answer: 0.2 to 1, by how long it took before."""
    if round_trip is None:
        return _MOST
    return min(_MOST, _LEAST + 2 * round_trip.seconds + 4 * round_trip.variation)
