"""What QUIC can refuse us.

CausewayError
├── DialError              no connection came about: nobody there, wrong certificate, handshake failed
├── TooManyStreamsError    no further stream may be opened on this connection now
└── ConnectionClosedError  the connection is gone
"""

from __future__ import annotations

from typing import ClassVar

from causeway.errors import CausewayError

__all__ = ["ConnectionClosedError", "DialError", "TooManyStreamsError"]


class DialError(CausewayError):
    """No connection came about; the message says why."""

    code: ClassVar[str] = "dial-failed"


class TooManyStreamsError(CausewayError):
    """As many streams are open as this connection may have; close one, or use another connection."""

    code: ClassVar[str] = "too-many-streams"


class ConnectionClosedError(CausewayError):
    """The connection is gone; dial again."""

    code: ClassVar[str] = "connection-closed"
