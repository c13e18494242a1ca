"""Tokens that control has signed: what this cluster has to check, beyond causeway.join_token. No IO.

A token is good for one participant, once, for the life of one placement: it must not have been shown before,
and the room must be the one that control made for that placement. After a restart of the cluster it is void
as a whole (its incarnation), so what was shown before need not outlive the process.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from causeway.join_token import TokenRefusedError, verify
from lab.room_rules import RoomError
from lab.tokens import Admission, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from causeway.api.tokens import JoinClaims
    from lab.rooms import Rooms

__all__ = ["SignedTokens"]


class SignedTokens:
    """Takes signed tokens for the rooms of one cluster."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        keys: Callable[[], Mapping[str, Ed25519PublicKey]],
        incarnation: Callable[[], str],
        issuer: str,
        clock: Callable[[], float],
        leeway: float,
        max_shown: int,
        missing: Callable[[str, int], None] = lambda _room, _placement: None,
    ) -> None:
        """`keys` gives control's present keys, `incarnation` what the cluster is registered with.

        `clock`: seconds since 1970, which may be `leeway` seconds apart from control's. `max_shown`: tokens
        remembered at once; while so many are still valid, no further one is taken. `missing` is called with a
        room and a placement that control takes to be here, as it signs tokens for them, and that are not.
        """
        self._rooms = rooms
        self._keys = keys
        self._incarnation = incarnation
        self._issuer = issuer
        self._clock = clock
        self._leeway = leeway
        self._max_shown = max_shown
        self._missing = missing
        self._shown: set[str] = set()
        self._by_expiry: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._shown)

    def redeem(self, token: str) -> Admission:
        """Return what a token stands for; it is void from then on. Raises TokenError, RoomError."""
        now = self._clock()
        try:
            claims = verify(
                token,
                self._keys(),
                issuer=self._issuer,
                cluster=self._rooms.cluster,
                incarnation=self._incarnation(),
                now=now,
                leeway=self._leeway,
            )
        except TokenRefusedError as error:
            raise TokenError(f"the token is not valid: {error}") from None
        self._require_room(claims)
        self._take(claims, now)
        return Admission(room=claims.conference, user=claims.user, role=claims.role, participant=claims.sub)

    def _require_room(self, claims: JoinClaims) -> None:
        """Make sure that the room is that of the token's placement. Raises TokenError, RoomError."""
        try:
            made_for = self._rooms.record(claims.conference).options.placement_epoch
        except RoomError:
            self._missing(claims.conference, claims.placement)
            raise
        if made_for in {None, claims.placement}:  # None: not control made it, so there is nothing to tell
            return
        if made_for < claims.placement:
            self._missing(claims.conference, claims.placement)
        raise TokenError("the token is not valid: for another life of the room")

    def _take(self, claims: JoinClaims, now: float) -> None:
        """Remember the token as shown for as long as it could be shown again."""
        while self._by_expiry and self._by_expiry[0][0] <= now:
            self._shown.discard(heapq.heappop(self._by_expiry)[1])
        if claims.jti in self._shown:
            raise TokenError("the token is not valid: shown before")
        if len(self._shown) >= self._max_shown:
            raise RoomError("too-many-tokens", "too many clients have come at once; try again")
        self._shown.add(claims.jti)
        heapq.heappush(self._by_expiry, (claims.exp + self._leeway, claims.jti))
