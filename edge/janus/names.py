"""What a conference is called in a Janus server, and what a client is given to join it there. Pure."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from causeway.errors import ConfigError
from edge.janus.messages import RoomId

__all__ = ["Portal", "RoomNames", "invitation", "new_id"]

_ID_BITS: Final = 52
"""Of numbers: JavaScript's clients read them exactly (up to 2^53)."""


class RoomNames(Struct, frozen=True, kw_only=True):
    """One conference's room in the server."""

    room: RoomId
    monitor: RoomId
    """Whom the connector joins as."""
    secret: str
    """What the server asks of who changes the room."""
    pin: str
    """What it asks of everybody who joins."""
    token: str
    """The connector's own token."""

    @classmethod
    def of(cls, conference: str, *, key: str, string_ids: bool) -> RoomNames:
        """Return the names that this conference and `key` always have; who has no key cannot guess them."""

        def derived(what: str) -> bytes:
            return hmac.digest(key.encode(), f"{what} {conference}".encode(), hashlib.sha256)

        number = int.from_bytes(hashlib.sha256(conference.encode()).digest()[:8], "big")
        monitor = derived("monitor")
        return cls(
            room=conference if string_ids else number >> 64 - _ID_BITS or 1,
            monitor=monitor.hex()[:16] if string_ids else _number(monitor),
            secret=derived("secret").hex()[:32],
            pin=derived("pin").hex()[:16],
            token=derived("token").hex()[:32],
        )

    def __repr__(self) -> str:
        return f"RoomNames({self.room})"


def new_id(drawn: bytes, *, string_ids: bool) -> RoomId:
    """Return an id for somebody in a room, of 8 random bytes."""
    return drawn.hex() if string_ids else _number(drawn)


def _number(drawn: bytes) -> int:
    return int.from_bytes(drawn[:8], "big") >> 64 - _ID_BITS or 1


class Portal(Struct, frozen=True):
    """Where clients reach the server: `url`, and its parts."""

    url: str
    host: str
    secure: bool

    @classmethod
    def of(cls, url: str) -> Portal:
        """Take a URL apart. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.hostname is None:
            raise ConfigError(f"edge.janus: {url!r} is no URL of a WebSocket: ws://host:port")
        secure = parts.scheme == "wss"
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(url, f"{name}:{port or (443 if secure else 80)}", secure)


def invitation(portal: Portal, names: RoomNames, *, id_: RoomId, token: str) -> str:
    """Return what a client is given: base64 of JSON, in the form of OWT's tokens, `janus` added.

    `janus` is what the client needs: {url, room, id, pin, token}; `id` is who it shall join as.
    """
    text = {
        "tokenId": hashlib.sha256(token.encode()).hexdigest()[:32],
        "host": portal.host,
        "secure": portal.secure,
        "webTransportUrl": "",
        "signature": "",
        "janus": {
            "url": portal.url,
            "room": names.room,
            "id": id_,
            "pin": names.pin,
            "token": token,
        },
    }
    return b64encode(msgspec.json.encode(text)).decode()
