"""What dialling and listening want of their sockets alike."""

from __future__ import annotations

import socket
import sys
from typing import Final

__all__ = ["udp_socket"]

_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PROBE: Final = 3
"""From Linux' headers (linux/in.h, linux/in6.h): Python does not have these names."""


def udp_socket(family: socket.AddressFamily, *, buffer_bytes: int) -> socket.socket:
    """Return a non-blocking UDP socket that asks for buffers of that size; the kernel gives up to its limit.

    The default holds some 150 datagrams, which one burst of a key frame fills. What it sends is not
    fragmented (RFC 9000 section 14), where the system lets us say so. Raises OSError.
    """
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.settimeout(0)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        udp.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
    if sys.platform == "linux":
        # What the kernel believes to know about the path is not asked: anybody can have told it.
        udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
    return udp
