"""Which of our calls wait for which reply: correlation ids and deadlines, for any carrier of OWT's RPC.

Sans-IO: the carrier sends the request, brings the reply, and says what time it is. What stands behind a
waiting call (a future, in the shells) is the carrier's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bridges.node.port import NodeUnreachableError, RpcError
from bridges.wire.rpc import FAILED, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RpcCalls", "outcome"]

W = TypeVar("W")

_MAX_ERROR_CHARACTERS = 300


def outcome(reply: Reply) -> Any:
    """Return the data of a reply; raises RpcError when it says that the call failed."""
    if reply.data == FAILED or reply.err is not None:
        raise RpcError(str(reply.err)[:_MAX_ERROR_CHARACTERS])
    return reply.data


class RpcCalls(Generic[W]):
    """The calls that wait for a reply. `max_outstanding` bounds how many may."""

    def __init__(self, *, max_outstanding: int = 1024) -> None:
        self._max_outstanding = max_outstanding
        self._last_id = 0
        self._waiting: dict[int, tuple[W, float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(
        self,
        waiter: W,
        target: str,
        method: str,
        args: Sequence[Any],
        *,
        deadline: float,
        reply_to: str | None = None,
    ) -> Request:
        """Return the request to send; `waiter` comes back with its reply, or once `deadline` has passed.

        Raises NodeUnreachableError when too many calls wait already: the other side is not answering.
        """
        if len(self._waiting) >= self._max_outstanding:
            raise NodeUnreachableError(f"{len(self._waiting)} calls wait for a reply already")
        self._last_id += 1
        self._waiting[self._last_id] = (waiter, deadline)
        return Request(to=target, method=method, args=list(args), corr_id=self._last_id, reply_to=reply_to)

    def take(self, corr_id: int) -> W | None:
        """Return whose reply this is and forget the call; None when nobody waits (any more)."""
        waiting = self._waiting.pop(corr_id, None)
        return None if waiting is None else waiting[0]

    def expire(self, now: float) -> list[W]:
        """Return and forget the calls whose deadline is reached."""
        late = [corr_id for corr_id, (_, deadline) in self._waiting.items() if deadline <= now]
        return [self._waiting.pop(corr_id)[0] for corr_id in late]

    def fail_all(self) -> list[W]:
        """Return and forget every call: the connection that replies would come on is gone."""
        waiters = [waiter for waiter, _ in self._waiting.values()]
        self._waiting.clear()
        return waiters
