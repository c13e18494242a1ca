"""Who is let in: the key in a request's header, what it may do, and how often.

Every replica counts for itself: with n replicas behind a balancer a key gets up to n times its limit.
Failures are counted by remote address, so that trying keys costs us no database; an address that has failed
too often is still served for keys that have been seen to be good.
"""

from __future__ import annotations

import ipaddress
import math
import time
from typing import TYPE_CHECKING, Final, Protocol

from control.errors import DatabaseUnavailableError, ForbiddenError, RateLimitedError, UnauthenticatedError
from control.http.ratelimit import Buckets, Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import HTTPConnection

    from causeway.keys import KeyKind, Scope
    from control.http.entry import Entry
    from control.rate_settings import BucketSettings, RateSettings

__all__ = ["Authenticates", "Caller", "Gate", "remote_of"]

_HIDDEN: Final = "?"
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a subscriber; the rest it may choose freely."""


class Caller(Protocol):
    """Whose key it is."""

    @property
    def id(self) -> str:
        """The key's public id, for the audit and the logs."""
        ...

    @property
    def kind(self) -> KeyKind:
        """What kind of key it is."""
        ...

    @property
    def scopes(self) -> frozenset[Scope]:
        """What an application key may do."""
        ...


class Authenticates(Protocol):
    """Who checks keys."""

    async def authenticate(self, header: str | None) -> Caller:
        """Return whose key is in an Authorization header; raises UnauthenticatedError."""
        ...

    def remembers(self, header: str | None) -> bool:
        """Return whether the very key in the header has been seen to be good; asks nobody."""
        ...


class Gate:
    """Admits requests. `clock` gives seconds."""

    def __init__(
        self,
        authenticator: Authenticates,
        settings: RateSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._limits: dict[KeyKind, Limit] = {
            "enrolment": _limit(settings.enrolment),
            "application": _limit(settings.application),
            "operator": _limit(settings.operator),
        }
        self._failure_limit = _limit(settings.failures)
        self._keys = Buckets(capacity=settings.max_entries)
        self._failures = Buckets(capacity=settings.max_entries)

    async def admit(self, request: HTTPConnection, entry: Entry) -> Caller:
        """Return the caller; raises UnauthenticatedError, ForbiddenError and RateLimitedError."""
        if entry.guest is not None:
            guest = self._guest(request, entry.guest)
            if guest is not None:
                return guest
        caller = await self.identify(request, request.headers.get("authorization"))
        kinds = entry.kinds or frozenset()
        if caller.kind not in kinds:
            raise ForbiddenError(f"needs a key of kind {' or '.join(sorted(kinds))}, this is {caller.kind}")
        if caller.kind == "application" and entry.scope not in caller.scopes:
            raise ForbiddenError(f"needs a key with the scope {entry.scope}")
        return caller

    def _guest(
        self, request: HTTPConnection, find: Callable[[HTTPConnection], Caller | None]
    ) -> Caller | None:
        """Return who comes without a key, counted as an application; failures count as those with keys do."""
        remote = remote_of(request)
        try:
            guest = find(request)
        except UnauthenticatedError:
            wait = self._failures.take(remote, self._failure_limit, self._clock())
            if wait:
                raise _limited("too many requests without a valid key came from this address", wait) from None
            raise
        if guest is not None:
            wait = self._keys.take(guest.id, self._limits["application"], self._clock())
            if wait:
                raise _limited(f"{guest.id} is used more often than it may be", wait)
        return guest

    async def identify(self, request: HTTPConnection, authorization: str | None) -> Caller:
        """Return whose key this is, for routes that get it elsewhere than in the header.

        `authorization` is as in the header: `Bearer cw_…`. Raises UnauthenticatedError and RateLimitedError.
        """
        if len(self._failures):
            wait = self._failures.wait(remote_of(request), self._failure_limit, self._clock())
            if wait and not self._authenticator.remembers(authorization):
                raise _limited("too many requests without a valid key came from this address", wait)
        try:
            caller = await self._authenticator.authenticate(authorization)
        except UnauthenticatedError:
            self._failures.take(remote_of(request), self._failure_limit, self._clock())
            raise
        wait = self._keys.take(caller.id, self._limits[caller.kind], self._clock())
        if wait:
            raise _limited(f"the key {caller.id} is used more often than {caller.kind} keys may be", wait)
        return caller

    async def still_admits(self, authorization: str | None) -> bool:
        """Return whether a key that was let in is still valid; for connections that last.

        As long as nobody can tell it is.
        """
        try:
            await self._authenticator.authenticate(authorization)
        except UnauthenticatedError:
            return False
        except DatabaseUnavailableError:
            return True
        return True


def remote_of(request: HTTPConnection) -> str:
    """Return the address that a request comes from, an IPv6 one by its network."""
    host = request.client.host if request.client is not None else _HIDDEN
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
    return host


def _limited(detail: str, wait: float) -> RateLimitedError:
    return RateLimitedError(detail, retry_after=max(1, math.ceil(wait)))


def _limit(settings: BucketSettings) -> Limit:
    return Limit(rate=settings.rate, burst=settings.burst)
