"""Whether a peer may be who it says: what can be checked on a wire where a cluster only names itself.

On OWT's wire the dialer says which cluster it is, and the token shows no more than that it may come to the
room. So that nobody who may come can push another cluster out by its name, a claim holds as long as the
connection that made it lives: a newcomer of the same name is let in when the former one is gone, ends, or
does not answer. Only who dials us is judged here; whom we dial shows a certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.event.session import Role

if TYPE_CHECKING:
    from bridges.event.streams import EventStream
    from bridges.quic import Connection

__all__ = ["gives_way"]


async def gives_way(current: EventStream | None, newcomer: Connection | None) -> bool:
    """Return whether a newcomer may take the place of the stream that its cluster and room have now.

    `newcomer` is its connection, None if it speaks another wire.
    """
    if current is None or current.ended or current.connection is newcomer:
        return True
    if current.role is Role.DIALER and not current.events_in:
        return True  # both have dialled; ours has not been let in yet, as far as we can know
    return not (await current.connection.answers() and current.open)
