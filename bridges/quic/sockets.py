"""What dialling and listening want of their sockets alike."""

from __future__ import annotations

import socket

__all__ = ["udp_socket"]


def udp_socket(family: socket.AddressFamily, *, buffer_bytes: int) -> socket.socket:
    """Return a non-blocking UDP socket that asks for buffers of that size; the kernel gives up to its limit.

    The default holds some 150 datagrams, which one burst of a key frame fills. Raises OSError.
    """
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.settimeout(0)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        udp.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
    return udp
