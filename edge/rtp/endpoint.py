"""The UDP ports that tracks come and go by: one for RTP, the next one for RTCP, or one for both (RFC 5761).

An asyncio shell; it knows datagrams and addresses, and nothing of what the packets of a track mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, cast

import structlog

from causeway.errors import UnavailableError
from edge.rtp import packet as rtp
from edge.rtp import rtcp
from edge.rtp.errors import RtpError
from edge.rtp.settings import RtpSettings

if TYPE_CHECKING:
    from edge.rtp.packet import RtpPacket
    from edge.rtp.rtcp import Rtcp

__all__ = ["Address", "PortsTakenError", "RtpEndpoint", "Tenant"]

_log: Final = structlog.get_logger(__name__)
_ATTEMPTS: Final = 50
_RECEIVE_BUFFER_BYTES: Final = 1 << 20

Address = tuple[str, int]


class PortsTakenError(UnavailableError):
    """The UDP ports cannot be had."""

    code: ClassVar[str] = "rtp-ports-taken"


class Tenant(Protocol):
    """One track at an endpoint."""

    def accepts(self, now: float, packet: RtpPacket) -> bool:
        """Whether the packet is of this track."""
        ...

    def receive(self, now: float, packet: RtpPacket, sender: Address) -> None:
        """Take a packet that is accepted."""
        ...

    def hear(self, now: float, packets: list[Rtcp]) -> None:
        """Take RTCP that has come, whomever it is for."""
        ...

    def close(self) -> None:
        """End the track."""
        ...


class RtpEndpoint:
    """Ports for any number of tracks. `await RtpEndpoint.open(…)`, later `close()`."""

    def __init__(self, *, peer: str | None, settings: RtpSettings) -> None:
        self.settings = settings
        self.rtcp_peer: Address | None = None
        """Where RTCP came from last."""
        self.foreign = 0
        """Datagrams of other hosts than the peer, passed over."""
        self.malformed = 0
        """Datagrams that were no RTP or RTCP, passed over."""
        self.unclaimed = 0
        """Packets of no track that is here, passed over."""
        self.dropped = 0
        """Datagrams that the sockets did not take in time, or could not send."""
        self._peer = peer
        self._tenants: list[Tenant] = []
        self._by_ssrc: dict[int, Tenant] = {}
        self._rtp: _Port | None = None
        self._rtcp: _Port | None = None

    @classmethod
    async def open(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        mux: bool = False,
        peer: str | None = None,
        settings: RtpSettings | None = None,
    ) -> Self:
        """Return an endpoint that listens on `host`; port 0 takes a free one, or a free pair.

        With `mux` RTP and RTCP share the port; otherwise RTCP has the one after it. With `peer`, an IP
        address, whatever comes from elsewhere is passed over. Raises PortsTakenError.
        """
        endpoint = cls(peer=peer, settings=settings or RtpSettings())
        for attempt in range(_ATTEMPTS):
            try:
                await endpoint._bind(host, port, mux=mux)
            except (OSError, OverflowError) as error:
                endpoint.close()
                if port != 0 or attempt == _ATTEMPTS - 1:
                    reason = getattr(error, "strerror", None) or str(error)
                    raise PortsTakenError(f"cannot listen on UDP {host}:{port}: {reason}") from None
            except asyncio.CancelledError:
                endpoint.close()
                raise
            else:
                break
        return endpoint

    @property
    def port(self) -> int:
        """The port of RTP."""
        assert self._rtp is not None
        return self._rtp.number

    @property
    def rtcp_port(self) -> int:
        """The port of RTCP; the same when they share it."""
        return self.port if self._rtcp is None else self._rtcp.number

    @property
    def mux(self) -> bool:
        """Whether RTP and RTCP share the port."""
        return self._rtcp is None

    def add(self, tenant: Tenant) -> None:
        """Have `tenant` told of what comes."""
        self._tenants.append(tenant)

    def remove(self, tenant: Tenant) -> None:
        """Tell it no more; unknown ones are ignored."""
        with contextlib.suppress(ValueError):
            self._tenants.remove(tenant)
        for ssrc in [ssrc for ssrc, known in self._by_ssrc.items() if known is tenant]:
            del self._by_ssrc[ssrc]

    def send_rtp(self, data: bytes, to: Address) -> None:
        """Send an RTP packet; dropped, and counted, when the socket does not take it."""
        self._send(self._rtp, data, to)

    def send_rtcp(self, packets: list[Rtcp], to: Address) -> None:
        """Send RTCP; likewise."""
        self._send(self._rtcp or self._rtp, rtcp.encode(packets), to)

    def close(self) -> None:
        """End every track, then close the ports."""
        for tenant in list(self._tenants):
            tenant.close()
        for port in (self._rtp, self._rtcp):
            if port is not None:
                port.close()
        self._rtp = self._rtcp = None

    async def _bind(self, host: str, port: int, *, mux: bool) -> None:
        self._rtp = await self._open(host, port)
        if not mux:
            self._rtcp = await self._open(host, self._rtp.number + 1)

    async def _open(self, host: str, number: int) -> _Port:
        loop = asyncio.get_running_loop()
        _, port = await loop.create_datagram_endpoint(lambda: _Port(self), local_addr=(host, number))
        return port

    def _send(self, port: _Port | None, data: bytes, to: Address) -> None:
        if port is None or not port.send(data, to, limit=self.settings.send_buffer_bytes):
            self.dropped += 1

    # What a port tells.

    def _received(self, data: bytes, sender: Address, *, control: bool) -> None:
        if self._peer is not None and sender[0] != self._peer:
            self.foreign += 1
            return
        now = asyncio.get_running_loop().time()
        if control:
            # Whatever it is: Janus shows where it wants to have RTCP with datagrams that are none.
            self.rtcp_peer = sender
        try:
            if control:
                packets = rtcp.decode(data)
            else:
                self._route(now, rtp.decode(data), sender)
                return
        except RtpError as error:
            self.malformed += 1
            _log.debug("rtp.malformed", sender=sender[0], reason=str(error))
            return
        for tenant in list(self._tenants):
            tenant.hear(now, packets)

    def _route(self, now: float, packet: RtpPacket, sender: Address) -> None:
        tenant = self._by_ssrc.get(packet.ssrc)
        if tenant is None or not tenant.accepts(now, packet):
            tenant = next((one for one in self._tenants if one.accepts(now, packet)), None)
            if tenant is None:
                self.unclaimed += 1
                return
            for ssrc in [ssrc for ssrc, known in self._by_ssrc.items() if known is tenant]:
                del self._by_ssrc[ssrc]
            self._by_ssrc[packet.ssrc] = tenant
        tenant.receive(now, packet, sender)


class _Transport(Protocol):
    """What asyncio's and uvloop's datagram transports have in common, as far as it is used here."""

    def sendto(self, data: bytes, addr: Address) -> None: ...

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def close(self) -> None: ...


class _Port(asyncio.DatagramProtocol):
    def __init__(self, endpoint: RtpEndpoint) -> None:
        self._endpoint = endpoint
        self._transport: _Transport | None = None
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("_Transport", transport)
        sock = transport.get_extra_info("socket")
        self.number = sock.getsockname()[1]
        _grow(sock)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        endpoint = self._endpoint
        control = self is endpoint._rtcp or (endpoint._rtcp is None and rtp.is_rtcp(data))  # noqa: SLF001 - the classes of this file are one thing
        endpoint._received(data, (addr[0], addr[1]), control=control)  # noqa: SLF001 - as above

    def error_received(self, exc: Exception) -> None:
        # Nobody listens there yet, or no more: with UDP that is the receiver's affair.
        self._endpoint.dropped += 1
        _log.debug("rtp.refused", reason=str(exc))

    def send(self, data: bytes, to: Address, *, limit: int) -> bool:
        """Send; returns whether the socket has taken it."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > limit:
            return False
        transport.sendto(data, to)
        return True

    def close(self) -> None:
        """Close the port."""
        if self._transport is not None:
            self._transport.close()


def _grow(sock: socket.socket) -> None:
    """Have the kernel hold a key frame's packets while we are busy; it gives what its limits allow."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
