"""One UDP socket on the event loop: many datagrams a turn in, as few calls as can be out.

The loop's own datagram transport takes one datagram per turn of the loop and puts each out with a call of
its own. Here a turn takes what has come, up to a bound, so that others have their turn, too; the kernel joins
and cuts datagrams where it can (segments.py). A socket that takes no more is waited for with a bounded queue:
what does not fit is dropped and counted, as the network would. What the kernel has dropped because nobody
came to fetch it is counted, too. Nothing of QUIC is known here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import structlog

from bridges.quic.segments import runs, split

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FULL", "OVERFLOWED", "REFUSED", "Address", "Count", "Pump", "Receiver"]

log = structlog.get_logger(__name__)

Address: TypeAlias = Any
"""Host and port, and for IPv6 two more; as the socket gives it."""

OVERFLOWED: Final = "socket_overflowed"
"""Counted: datagrams that the kernel dropped because they were not fetched in time."""
FULL: Final = "socket_full"
"""Counted: datagrams that were dropped because the socket took no more, and too many waited already."""
REFUSED: Final = "socket_refused"
"""Counted: datagrams that the kernel would not send: no way there, too long for the way, a firewall."""

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SO_RXQ_OVFL: Final = 40
_SO_TIMESTAMPNS: Final = 35
"""From Linux' headers (linux/udp.h, asm-generic/socket.h): Python does not have these names."""
_LINUX: Final = sys.platform == "linux"

_MOST_BYTES: Final = 65_535
_INT: Final = struct.Struct("=i")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY_BYTES: Final = 2 * socket.CMSG_SPACE(_INT.size) + socket.CMSG_SPACE(_TIMESPEC.size)
_LONGEST_WAIT: Final = 1.0
"""Seconds that a datagram can have waited to be fetched; what seems longer is a clock that was set."""
_NO_SEGMENTS: Final = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
"""What a kernel or a network card says that cannot cut: EIO is that of a card without checksums."""


class Count(Protocol):
    """What counts by name."""

    def __call__(self, name: str, by: int = 1, /) -> None:
        """Add to a counter."""


class Receiver(Protocol):
    """Whose socket it is. Called from the loop, never from within send()."""

    def datagram_received(self, data: bytes, address: Address, now: float) -> None:
        """Take a datagram, which the kernel had at `now` of the loop's clock."""

    def error_received(self, error: OSError) -> None:
        """Take note of what the kernel says of something that was sent: of a connected socket, mostly."""


class Pump:
    """A non-blocking UDP socket, bound or connected, and its receiver. Owns the socket from now on.

    `offload`: let the kernel cut and join, where it can. `per_turn`: datagrams that are taken in one turn of
    the loop (what one call has brought is taken as a whole). `max_waiting`: bytes that may wait for a full
    socket.
    """

    def __init__(
        self,
        udp: socket.socket,
        receiver: Receiver,
        *,
        count: Count,
        offload: bool = True,
        per_turn: int = 64,
        max_waiting: int = 1 << 18,
    ) -> None:
        self._socket = udp
        self._receiver = receiver
        self._count = count
        self._per_turn = per_turn
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._overflowed = 0
        self._waiting: deque[tuple[list[bytes], Address]] = deque()
        """Runs that were not sent yet, in order."""
        self._waiting_bytes = 0
        self._blocked = False
        self.segments: bool = offload and _can_segment(udp)
        """Whether several datagrams go out in one call."""
        if _LINUX:
            udp.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            udp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if offload:
                _ask_for_joined(udp)
        self._loop.add_reader(udp, self._readable)

    @property
    def port(self) -> int:
        """The socket's own port."""
        port: int = self._socket.getsockname()[1]
        return port

    def send(self, datagrams: Sequence[bytes], address: Address = None) -> None:
        """Send datagrams to `address`, in order; None: to where the socket is connected.

        Never blocks and never fails: what the socket does not take now waits; beyond the bound it is dropped.
        """
        if self._closed:
            return
        for run in runs(datagrams) if self.segments else ([datagram] for datagram in datagrams):
            size = sum(map(len, run))
            if self._blocked and self._waiting_bytes + size > self._max_waiting:
                self._count(FULL, len(run))
                continue
            self._waiting.append((run, address))
            self._waiting_bytes += size
        if not self._blocked:
            self._flush()

    def close(self) -> None:
        """Close the socket; what still waits is not sent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._waiting.clear()
        self._socket.close()

    # --- out ------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what waits until the socket takes no more."""
        waiting = self._waiting
        while waiting:
            run, address = waiting[0]
            try:
                self._put(run, address)
            except (BlockingIOError, InterruptedError):
                self._block()
                return
            except OSError as error:
                waiting.popleft()
                if len(run) > 1 and self._may_go_singly(error):
                    waiting.extendleft(([datagram], address) for datagram in reversed(run))
                    continue
                self._count(REFUSED, len(run))
                self._loop.call_soon(self._tell, error)
            else:
                waiting.popleft()
            self._waiting_bytes -= sum(map(len, run))
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._socket)

    def _put(self, run: list[bytes], address: Address) -> None:
        """Put a run on the network with one call."""
        if len(run) > 1:
            how = [(_SOL_UDP, _UDP_SEGMENT, _U16.pack(len(run[0])))]
            self._socket.sendmsg(run, how, 0, *(() if address is None else (address,)))
        elif address is None:
            self._socket.send(run[0])
        else:
            self._socket.sendto(run[0], address)

    def _block(self) -> None:
        if not self._blocked:
            self._blocked = True
            self._loop.add_writer(self._socket, self._flush)

    def _may_go_singly(self, error: OSError) -> bool:
        """Return whether a run was refused for being one; if never any will be taken, remember that."""
        if error.errno in _NO_SEGMENTS:
            log.info("quic.no_segments", error=error.strerror)
            self.segments = False
            return True
        return error.errno == errno.EMSGSIZE  # too long for this one way; singly the kernel may fragment

    def _tell(self, error: OSError) -> None:
        if not self._closed:
            self._receiver.error_received(error)

    # --- in -------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Take what has come."""
        left = self._per_turn
        while left > 0 and not self._closed:
            try:
                data, ancillary, _, address = self._socket.recvmsg(_MOST_BYTES, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._receiver.error_received(error)
                return
            size, waited = self._read(ancillary)
            came = self._loop.time() - waited
            for datagram in split(data, size):
                left -= 1
                self._receiver.datagram_received(datagram, address, came)

    def _read(self, ancillary: list[tuple[int, int, bytes]]) -> tuple[int, float]:
        """Return the size of the datagrams that were joined (0: none were), and for how long they waited.

        Counts what was lost before.
        """
        size, waited = 0, 0.0
        for level, kind, value in ancillary:
            if (level, kind) == (_SOL_UDP, _UDP_GRO):
                (size,) = _INT.unpack(value)
            elif (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                (total,) = _U32.unpack(value)
                if total != self._overflowed:
                    self._count(OVERFLOWED, (total - self._overflowed) % (1 << 32))
                    self._overflowed = total
            elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                waited = time.time() - seconds - nanoseconds * 1e-9
        return size, waited if 0.0 < waited < _LONGEST_WAIT else 0.0


def _can_segment(udp: socket.socket) -> bool:
    """Return whether the kernel knows how to cut."""
    if not _LINUX:
        return False
    try:
        udp.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def _ask_for_joined(udp: socket.socket) -> None:
    """Have datagrams of one sender fetched together, if the kernel can; without, it only takes longer."""
    try:
        udp.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError as error:
        log.debug("quic.no_joined", error=error.strerror)
