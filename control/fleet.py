"""From a cluster's registration to a driver that talks to it. Only here are service keys opened."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from control.drivers.base import NotSupportedError
from control.drivers.causeway import CausewayDriver

if TYPE_CHECKING:
    from causeway.api import PortalAddress
    from control.drivers.base import ClusterDriver
    from control.drivers.causeway import Signs
    from control.drivers.openvidu import OpenViduConnections
    from control.drivers.owt import OwtConnections
    from control.security.vault import Vault

__all__ = ["SERVICE_KEY", "Fleet", "Reachable"]

_DRIVERS_KEPT: Final = 4096

SERVICE_KEY = "clusters.service_key"
"""Where service keys are sealed for, followed by the cluster's id."""


class Reachable(Protocol):
    """What the registry hands out about a cluster: `ClusterAccess`, or a join's `Choice`."""

    @property
    def driver(self) -> str:
        """Which kind of cluster it is."""
        ...

    @property
    def rest_url(self) -> str:
        """Base of the management API."""
        ...

    @property
    def service_id(self) -> str:
        """Who we are there."""
        ...

    @property
    def sealed_key(self) -> bytes:
        """Sealed for SERVICE_KEY and the cluster's id."""
        ...

    @property
    def incarnation(self) -> str:
        """Which start of the deployment it is."""
        ...

    @property
    def portal(self) -> PortalAddress | None:
        """Where its clients connect, if it has registered that."""
        ...


class _Registered(NamedTuple):
    """What a driver is made of."""

    cluster: str
    driver: str
    rest_url: str
    service_id: str
    sealed_key: bytes
    incarnation: str
    portal: PortalAddress | None


class Fleet:
    """Makes drivers. Whoever needs one asks anew, so that a changed registration counts."""

    def __init__(
        self, *, owt: OwtConnections, openvidu: OpenViduConnections, signer: Signs, vault: Vault
    ) -> None:
        self._owt = owt
        self._openvidu = openvidu
        self._signer = signer
        self._vault = vault
        # A driver holds nothing but what is in the registration that it is made of: the same again will do.
        self._made = lru_cache(_DRIVERS_KEPT)(self._make)

    def driver(self, cluster: str, access: Reachable) -> ClusterDriver:
        """Return the driver of the cluster.

        Raises SealError when its key does not open, NotSupportedError for a kind that this release has not.
        """
        return self._made(
            _Registered(
                cluster,
                access.driver,
                access.rest_url,
                access.service_id,
                access.sealed_key,
                access.incarnation,
                access.portal,
            )
        )

    def signer(self, cluster: str, access: Reachable) -> CausewayDriver | None:
        """Return the cluster's driver if it signs tokens itself, and asks nobody. Raises as `driver` does."""
        driver = self.driver(cluster, access)
        return driver if isinstance(driver, CausewayDriver) else None

    def _make(self, access: _Registered) -> ClusterDriver:
        rest_url, service_id = access.rest_url, access.service_id
        key = self._vault.open(access.sealed_key, SERVICE_KEY, access.cluster)
        match access.driver:
            case "owt":
                return self._owt.driver(rest_url=rest_url, service_id=service_id, service_key=key)
            case "causeway":
                return CausewayDriver(
                    self._owt.driver(rest_url=rest_url, service_id=service_id, service_key=key),
                    self._signer,
                    cluster=access.cluster,
                    incarnation=access.incarnation,
                    portal=access.portal,
                )
            case "openvidu":
                return self._openvidu.driver(rest_url=rest_url, service_id=service_id, service_key=key)
            case other:
                raise NotSupportedError(f"no driver {other}")
