"""Whether a peer may be who it says: what can be checked on a wire where a cluster only names itself.

On OWT's wire the dialer says which cluster it is, and the token shows no more than that it may come to the
room. So that nobody who may come can push another cluster out by its name, a claim holds as long as the
connection that made it lives: a newcomer of the same name is let in when the former one is gone, ends, or
does not answer. Only who dials us is judged here; whom we dial shows a certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.event.session import Role

if TYPE_CHECKING:
    from bridges.event.streams import EventStream
    from bridges.quic import RoundTrip

__all__ = ["gives_way", "patience"]

_LEAST: Final = 0.2
_MOST: Final = 1.0
"""Seconds: a peer that was restarted without a word waits no longer than that for its place."""


def patience(round_trip: RoundTrip | None) -> float:
    """Return how many seconds a living peer may take to answer."""
    if round_trip is None:
        return _MOST
    return min(_MOST, _LEAST + 2 * round_trip.seconds + 4 * round_trip.variation)


async def gives_way(current: EventStream | None, newcomer: EventStream) -> bool:
    """Return whether `newcomer` may take the place of the stream that its cluster and room have now."""
    if current is None or current.ended or current.connection is newcomer.connection:
        return True
    if current.role is Role.DIALER and not current.events_in:
        return True  # both have dialled; ours has not been let in yet, as far as we can know
    alive = await current.connection.answers(patience(current.round_trip))
    return not (alive and current.open)
