"""Where webhooks may go: a URL's form, and the addresses that its host turns out to have. Pure.

Whoever may set a webhook's URL must not be able to make the central service talk to its own neighbours
(server-side request forgery). A name is judged by its addresses, at the moment of connecting, and the
connection goes to those very addresses (control.delivery.sender); redirects are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from urllib.parse import urlsplit

from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network

__all__ = ["AddressRefusedError", "Guard"]

Address: TypeAlias = IPv4Address | IPv6Address

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address, which a translator would connect to."""
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
"""RFC 8215: translation prefixes of one's own network."""


class AddressRefusedError(OSError):
    """A webhook would go where webhooks may not go. The message names the address, never the URL."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules. Public unicast addresses are always allowed; any other one must be in `networks`."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    http: bool = False
    """Plain http:// is allowed, too."""

    @classmethod
    def of(cls, networks: Iterable[str], *, http: bool) -> Self:
        """Read networks as `10.0.0.0/8` or `fd00::/8`; raises ConfigError."""
        try:
            return cls(tuple(ip_network(each) for each in networks), http=http)
        except ValueError as error:
            raise ConfigError(f"control.webhooks.allow_networks: {error}") from None

    def check_url(self, url: str) -> None:
        """Hold a URL against the rules as far as it can be without resolving its host; raises ValueError."""
        try:
            parts = urlsplit(url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            raise ValueError("not a URL") from None
        if parts.scheme not in {"https", "http"} or not host:
            raise ValueError("must be an https:// URL with a host")
        if parts.scheme == "http" and not self.http:
            raise ValueError("must be https://; plain http:// is allowed by control.webhooks.allow_http")
        if "@" in parts.netloc:
            raise ValueError("must hold no user name or password")
        if "#" in url:
            raise ValueError("must have no fragment")
        try:
            literal = ip_address(host)
        except ValueError:
            return
        try:
            self.check(str(literal))
        except AddressRefusedError as error:
            raise ValueError(str(error)) from None

    def check(self, address: str) -> None:
        """Raise AddressRefusedError unless this IP address may be connected to."""
        try:
            # A zone (fe80::1%eth0) is part of the address's text, and means a neighbour.
            found = ip_address(address)
        except ValueError:
            raise AddressRefusedError("not an IP address") from None
        if not self._allows(found):
            raise AddressRefusedError(
                f"{found} is no public address; control.webhooks.allow_networks can allow it"
            )

    def _allows(self, address: Address) -> bool:
        meant = [address, *_embedded(address)]
        # An address that stands for another one is as good as the worst of them.
        return all(_public(each) or self._listed(each) for each in meant) or self._listed(address)

    def _listed(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return True  # nothing by itself: judged by the address in it
        if address.scope_id is not None or address in _NAT64_LOCAL or address.is_site_local:
            return False
        if address in _NAT64:
            return True  # as above
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that packets to an IPv6 address may really go to."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
