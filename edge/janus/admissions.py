"""Who was given a token to join a room of the Janus server. Pure: time is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from edge.janus.messages import RoomId

__all__ = ["Admissions", "Admitted"]


class Admitted(Struct, frozen=True):
    """Who somebody is: known from the token that was made for them."""

    user: str
    role: str


class _Pending(Struct, frozen=True):
    token: str
    expires: float


class Admissions:
    """Of one room; at most `limit` wait, beyond that the oldest is void. `ttl` is in seconds of any clock."""

    def __init__(self, *, ttl: float, limit: int) -> None:
        self._ttl = ttl
        self._limit = limit
        self._pending: dict[RoomId, _Pending] = {}
        self._known: dict[RoomId, Admitted] = {}
        self._void: list[str] = []

    @property
    def tokens(self) -> list[str]:
        """Those that are good."""
        return [pending.token for pending in self._pending.values()]

    def add(self, now: float, id_: RoomId, who: Admitted, token: str) -> None:
        """Let `who` in, as `id_`, with `token`."""
        while len(self._pending) >= self._limit:
            self._forget(next(iter(self._pending)))
        self._known[id_] = who
        self._pending[id_] = _Pending(token, now + self._ttl)

    def arrived(self, id_: RoomId) -> Admitted | None:
        """Say who joined as `id_`, if they had a token of ours; it is void from now on."""
        if (pending := self._pending.pop(id_, None)) is not None:
            self._void.append(pending.token)
        return self._known.get(id_)

    def left(self, id_: RoomId) -> None:
        """Forget who has gone."""
        if id_ not in self._pending:
            self._known.pop(id_, None)

    def void(self, now: float) -> list[str]:
        """Return the tokens that have become void since the last call."""
        # They are in order of expiry, as all live equally long.
        while self._pending and (oldest := next(iter(self._pending))) is not None:
            if self._pending[oldest].expires > now:
                break
            self._forget(oldest)
        void, self._void = self._void, []
        return void

    def due(self) -> float | None:
        """Return when the next one becomes void."""
        return next((pending.expires for pending in self._pending.values()), None)

    def _forget(self, id_: RoomId) -> None:
        self._void.append(self._pending.pop(id_).token)
        self._known.pop(id_, None)
