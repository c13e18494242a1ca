"""What a payload format is to its users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from edge.rtp.packet import RtpPacket

__all__ = ["Depacketizer", "Encoded", "Packetizer"]


class Encoded(Struct, frozen=True, kw_only=True, gc=False):
    """One encoded frame, whole: a picture, or a piece of sound."""

    payload: bytes
    timestamp: int
    key_frame: bool = True
    width: int = 0
    """Of pictures, in pixels; 0: not known."""
    height: int = 0
    temporal: int = 0
    """The temporal layer of a picture, 0 the base, where its packets say it."""
    samples: int = 0
    """Of sound: samples of each channel."""
    channels: int = 0


class Depacketizer(Protocol):
    """Puts the frames of one track together from packets that come in order."""

    def push(self, packet: RtpPacket) -> Encoded | None:
        """Take the next packet; returns the frame that it completes. Raises RtpError for what is no payload.

        After an error the frame that the packet belongs to is lost, as after `lose`.
        """
        ...

    def lose(self) -> None:
        """Take note that packets are missing before the next one."""
        ...

    @property
    def wants_key_frame(self) -> bool:
        """Whether nothing can be decoded until a key frame comes."""
        ...


class Packetizer(Protocol):
    """Takes the frames of one track apart."""

    def split(self, frame: bytes, *, key_frame: bool, max_bytes: int) -> list[bytes]:
        """Return the payloads of a frame's packets, each at most `max_bytes` long; none for an empty frame.

        Raises RtpError for what is no frame of the format.
        """
        ...
