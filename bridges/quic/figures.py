"""Figures of QUIC connections: what they measure anyway, put into words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.figures import PeerFigures, named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.quic.connection import Connection
    from causeway.api.figures import FiguresKind

__all__ = ["describe_peer", "round_trip_ms"]


def round_trip_ms(connection: Connection) -> float | None:
    """Return the smoothed round trip in milliseconds; None while nothing was measured."""
    measured = connection.round_trip
    return None if measured is None else 1000 * measured.seconds


def describe_peer(
    kind: FiguresKind, peer: str, wire: str, connections: Sequence[Connection], *, links: int
) -> PeerFigures:
    """Return the figures of one wire's connections to a peer; `links` are up on them."""
    best = min((each.round_trip for each in connections if each.round_trip is not None), default=None)
    return PeerFigures(
        kind=kind,
        peer=named(peer),
        wires=[wire],
        connections=len(connections),
        streams=sum(each.streams for each in connections),
        links=links,
        bytes_in=sum(each.bytes_in for each in connections),
        bytes_out=sum(each.bytes_out for each in connections),
        round_trip_ms=None if best is None else 1000 * best.seconds,
        jitter_ms=None if best is None else 1000 * best.variation,
    )
