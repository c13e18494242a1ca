"""Where a client is, as trusted proxies tell: a header with its country, or its address looked up in a file.

Nobody else is believed: the headers of a request that comes from outside `trusted_proxies` are not looked at.
What the request's body says goes before everything here.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from starlette.requests import Request

    from control.placement_settings import PlacementSettings

__all__ = ["Hint", "Hints"]

_FORWARDED: Final = "x-forwarded-for"
_HOPS: Final = 32
"""Addresses of X-Forwarded-For looked at, from the end."""


class Hint(NamedTuple):
    """What is known; both None: nothing."""

    region: str | None = None
    location: tuple[float, float] | None = None


class Hints:
    """Reads hints; holds the open database file, which is closed at the end of its context."""

    def __init__(self, settings: PlacementSettings) -> None:
        """Open the database file. Raises ConfigError for a file, or a network, that cannot be used."""
        self._header = settings.country_header.lower()
        self._countries = settings.countries
        self._networks = [_network(each) for each in settings.trusted_proxies]
        self._geo = _geo(settings.geo_database)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the database file."""
        if self._geo is not None:
            self._geo.close()

    def read(self, request: Request) -> Hint:
        """Return what a trusted proxy tells of the client."""
        if not self._networks or request.client is None or not self._trusted(request.client.host):
            return Hint()
        region = None
        if self._header:
            region = self._countries.get(request.headers.get(self._header, "").strip().upper())
        if region is not None or self._geo is None:
            return Hint(region)
        return Hint(None, self._located(request.headers.get(_FORWARDED, "")))

    def _located(self, forwarded: str) -> tuple[float, float] | None:
        """Look the client up: the last address that is not a proxy of ours."""
        for text in list(reversed(forwarded.split(",")))[:_HOPS]:
            address = _address(text.strip())
            if address is None:
                return None
            if self._trusted(str(address)):
                continue
            assert self._geo is not None
            found = self._geo.get(str(address))
            location = found.get("location") if isinstance(found, dict) else None
            if not isinstance(location, dict):
                return None
            lat, lon = location.get("latitude"), location.get("longitude")
            return (lat, lon) if isinstance(lat, float) and isinstance(lon, float) else None
        return None

    def _trusted(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"control.placement.trusted_proxies: {error}") from None


def _geo(file: str) -> Any:
    if not file:
        return None
    try:
        import maxminddb  # noqa: PLC0415 - an extra; only those who set the file need it
    except ImportError:
        raise ConfigError(
            "control.placement.geo_database: needs the extra `geo` (pip install causeway[geo])"
        ) from None
    try:
        return maxminddb.open_database(file)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        reason = getattr(error, "strerror", None) or "not a MaxMind database"
        raise ConfigError(f"control.placement.geo_database: {file}: {reason}") from None
