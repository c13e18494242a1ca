"""How long a peer takes to answer, as QUIC measures it anyway."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RoundTrip"]


class RoundTrip(NamedTuple):
    """Smoothed over the connection's life (RFC 9002 section 5.3)."""

    seconds: float
    variation: float
    """Mean deviation, seconds."""
