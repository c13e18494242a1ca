"""From a cluster's registration to a driver that talks to it. Only here are service keys opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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


class Fleet:
    """Makes drivers. They are cheap; whoever needs one asks anew, so that a changed registration counts."""

    def __init__(
        self, *, owt: OwtConnections, openvidu: OpenViduConnections, signer: Signs, vault: Vault
    ) -> None:
        self._owt = owt
        self._openvidu = openvidu
        self._signer = signer
        self._vault = vault

    def driver(self, cluster: str, access: Reachable) -> ClusterDriver:
        """Return the driver of the cluster.

        Raises SealError when its key does not open, NotSupportedError for a kind that this release has not.
        """
        rest_url, service_id = access.rest_url, access.service_id
        key = self._vault.open(access.sealed_key, SERVICE_KEY, cluster)
        match access.driver:
            case "owt":
                return self._owt.driver(rest_url=rest_url, service_id=service_id, service_key=key)
            case "causeway":
                return CausewayDriver(
                    self._owt.driver(rest_url=rest_url, service_id=service_id, service_key=key),
                    self._signer,
                    cluster=cluster,
                    incarnation=access.incarnation,
                    portal=access.portal,
                )
            case "openvidu":
                return self._openvidu.driver(rest_url=rest_url, service_id=service_id, service_key=key)
            case other:
                raise NotSupportedError(f"no driver {other}")
