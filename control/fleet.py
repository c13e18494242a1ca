"""From a cluster's registration to a driver that talks to it. Only here are service keys opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from control.drivers.base import ClusterDriver
    from control.drivers.owt import OwtConnections
    from control.security.vault import Vault

__all__ = ["SERVICE_KEY", "Fleet", "Reachable"]

SERVICE_KEY = "clusters.service_key"
"""Where service keys are sealed for, followed by the cluster's id."""


class Reachable(Protocol):
    """What the registry hands out about a cluster: `ClusterAccess`, or a join's `Choice`."""

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


class Fleet:
    """Makes drivers. They are cheap; whoever needs one asks anew, so that a changed registration counts."""

    def __init__(self, owt: OwtConnections, vault: Vault) -> None:
        self._owt = owt
        self._vault = vault

    def driver(self, cluster: str, access: Reachable) -> ClusterDriver:
        """Return the driver of the cluster; raises SealError when its key does not open."""
        return self._owt.driver(
            rest_url=access.rest_url,
            service_id=access.service_id,
            service_key=self._vault.open(access.sealed_key, SERVICE_KEY, cluster),
        )
