"""One request to an OpenVidu 2 server: base URL, Basic authentication, limits, and what a status means.

Knows none of the API's calls; control.drivers.openvidu does.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from control.drivers.base import CredentialsRefusedError, DriverError
from control.drivers.connections import refusal

if TYPE_CHECKING:
    from control.drivers.connections import ClusterConnections

__all__ = ["Meanings", "OpenViduRest", "accepted"]

Meanings: TypeAlias = dict[int, tuple[type[DriverError], str]]
"""What a status means in a particular call: the error, and the reason in words."""

_USUAL: Final[Meanings] = {}
_SUCCESS: Final = range(200, 300)


class OpenViduRest:
    """Sends requests to one cluster. `max_listing_bytes` limits the answers of `listing` requests."""

    def __init__(
        self,
        connections: ClusterConnections,
        *,
        rest_url: str,
        service_id: str,
        service_key: str,
        max_listing_bytes: int,
    ) -> None:
        self._connections = connections
        self._base = rest_url.rstrip("/") + "/openvidu/api"
        self._service_id = service_id
        self._service_key = service_key
        self._max_listing_bytes = max_listing_bytes

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        timeout: float | None = None,
        listing: bool = False,
        meanings: Meanings = _USUAL,
    ) -> bytes:
        """Send a request and return the answer's body, or raise what its status means."""
        status, answer = await self.send(method, path, body=body, timeout=timeout, listing=listing)
        return accepted(status, answer, meanings)

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        timeout: float | None = None,
        listing: bool = False,
    ) -> tuple[int, bytes]:
        """Send a request; return status and body, whatever they are. Raises DriverError for the rest."""
        connections = self._connections
        sending = connections.send(
            method,
            f"{self._base}/{path}",
            body=None if body is None else msgspec.json.encode(body),
            authorization=self._basic(),
            max_answer_bytes=self._max_listing_bytes if listing else None,
        )
        return await connections.within(timeout, sending)

    def _basic(self) -> str:
        if ":" in self._service_id:
            raise CredentialsRefusedError("the service id has a colon: Basic authentication cannot carry it")
        pair = f"{self._service_id}:{self._service_key}"
        return "Basic " + b64encode(pair.encode()).decode("ascii")


def accepted(status: int, answer: bytes, meanings: Meanings = _USUAL) -> bytes:
    """Return the body of a successful answer; raise what another one means."""
    if status in _SUCCESS:
        return answer
    meaning = meanings.get(status)
    if meaning is None:
        raise refusal(status)
    error, why = meaning
    raise error(f"the cluster answered {status}: {why}")
