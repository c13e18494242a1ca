"""The short way in for most packets of a connection in use: short header, one path, known key, datagrams.

aioquic (1.7) takes each packet through everything that could be the matter with it, which is most of the work
of receiving media. Here a packet about which nothing is unusual is decrypted and noted as the library does
it; whatever is unusual is left to the library, as it came, and everything once the peer has moved to another
address. What a packet carries besides datagrams is the library's as well.
tests/bridges/test_quic_inside_short_ways.py compares both ways packet by packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aioquic._crypto import PACKET_NUMBER_LENGTH_MAX, SAMPLE_LENGTH, CryptoError
from aioquic.quic.connection import (
    END_STATES,
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import DatagramFrameReceived
from aioquic.quic.packet import PACKET_FIXED_BIT, QuicFrameType, decode_packet_number
from aioquic.quic.recovery import MAX_ACK_RANGES
from aioquic.tls import Epoch

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress, QuicConnection, QuicNetworkPath
    from aioquic.quic.crypto import CryptoContext
    from aioquic.quic.recovery import QuicPacketSpace

__all__ = ["receive_shortly"]

_LONG_OR_NOT_FIXED: Final = 0xC0
_SPIN: Final = 0x20
_RESERVED: Final = 0x18
_KEY_PHASE: Final = 0x04
_PROTECTED: Final = 0x1F
_NUMBER_LENGTH: Final = 0x03
"""Bits of a short header's first byte (RFC 9000, section 17.3.1; RFC 9001, section 5.4.1)."""
_DATAGRAM_WITH_LENGTH: Final = int(QuicFrameType.DATAGRAM_WITH_LENGTH)
_TWO_BYTES: Final = 0x40
_FOUR_BYTES: Final = 0x80
"""From which on the first byte of a number says so (RFC 9000, section 16)."""
_ANY_DATAGRAM: Final = 1 << 16
"""Bytes: no frame is larger, as no UDP datagram is."""


def receive_shortly(quic: QuicConnection) -> None:
    """Let a connection take usual packets the short way, once its handshake is confirmed."""
    quic.receive_datagram = _Receiving(quic).receive_datagram  # type: ignore[method-assign]


class _Receiving:
    """One connection's way in."""

    def __init__(self, quic: QuicConnection) -> None:
        self._quic = quic
        self._take = quic.receive_datagram
        self._path: QuicNetworkPath | None = None
        """The one that the handshake was done on; None before its end."""
        self._crypto: CryptoContext
        self._space: QuicPacketSpace
        self._takes_datagrams = False

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """Take a datagram as the library's own method does."""
        quic, path = self._quic, self._path
        if path is None:
            self._take(data, addr, now)
            self._look()
            return
        paths, cid = quic._network_paths, quic.host_cid
        if (
            addr != path.addr
            or paths[0] is not path
            or len(paths) != 1
            or quic._state is not QuicConnectionState.CONNECTED
            or quic._close_pending
            or not data.startswith(cid, 1)
            or data[0] & _LONG_OR_NOT_FIXED != PACKET_FIXED_BIT
            or not self._taken(data, cid, now)
        ):
            self._take(data, addr, now)

    def _look(self) -> None:
        """Take note of what does not change any more once the handshake is confirmed."""
        quic = self._quic
        if (
            quic._handshake_confirmed
            and quic._quic_logger is None
            and len(quic._network_paths) == 1
            and quic._network_paths[0].is_validated
            and (quic._is_client or not quic._cryptos[Epoch.ZERO_RTT].recv.is_valid())
        ):
            self._crypto = quic._cryptos[Epoch.ONE_RTT].recv
            self._space = quic._spaces[Epoch.ONE_RTT]
            self._takes_datagrams = (quic._configuration.max_datagram_frame_size or 0) >= _ANY_DATAGRAM
            self._path = quic._network_paths[0]

    def _taken(self, data: bytes, cid: bytes, now: float) -> bool:
        """Take a packet; return False, with nothing changed, if it is unusual."""
        opened = self._opened(data, cid)
        if opened is None:
            return False
        first, number, payload = opened
        quic, space = self._quic, self._space
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > quic._spin_highest_pn:
            spin = bool(first & _SPIN)
            quic._spin_bit = not spin if quic._is_client else spin
            quic._spin_highest_pn = number
        datagrams = _datagrams(payload) if self._takes_datagrams else None
        if datagrams:
            quic._events.extend([DatagramFrameReceived(data=each) for each in datagrams])
            eliciting = True
        else:
            eliciting = self._hand_over(payload, cid, now)
            if quic._state in END_STATES or quic._close_pending:
                return True
        quic._close_at = now + quic._idle_timeout()
        quic._ack_eliciting_sent_since_receipt = False
        self._note(number, now, eliciting=eliciting)
        return True

    def _opened(self, data: bytes, cid: bytes) -> tuple[int, int, bytes] | None:
        """Return first byte, number and payload of a packet; None if it cannot be read, or was before.

        RFC 9001, sections 5.3 and 5.4.
        """
        crypto, space = self._crypto, self._space
        offset = 1 + len(cid)
        sample_at = offset + PACKET_NUMBER_LENGTH_MAX
        sample = data[sample_at : sample_at + SAMPLE_LENGTH]
        if len(sample) < SAMPLE_LENGTH:
            return None
        assert crypto.hp is not None
        assert crypto.aead is not None
        mask = crypto.hp._mask(sample)
        first = data[0] ^ mask[0] & _PROTECTED
        if first & _RESERVED or (first & _KEY_PHASE) >> 2 != crypto.key_phase:
            return None
        length = (first & _NUMBER_LENGTH) + 1
        end = offset + length
        shortened = int.from_bytes(data[offset:end], "big") ^ int.from_bytes(mask[1 : 1 + length], "big")
        number = decode_packet_number(shortened, 8 * length, space.expected_packet_number)
        if number in space.received_packets:
            return None
        header = bytes((first,)) + cid + shortened.to_bytes(length, "big")
        try:
            return first, number, crypto.aead.decrypt(data[end:], header, number)
        except CryptoError:
            return None

    def _hand_over(self, payload: bytes, cid: bytes, now: float) -> bool:
        """Let the library take what a packet carries; return whether that is to be acknowledged."""
        quic = self._quic
        assert self._path is not None
        context = QuicReceiveContext(
            epoch=Epoch.ONE_RTT,
            host_cid=cid,
            network_path=self._path,
            quic_logger_frames=None,
            time=now,
            version=None,
        )
        try:
            eliciting, _ = quic._payload_received(context, payload)
        except QuicConnectionError as error:
            quic._logger.warning(error)
            quic.close(
                error_code=error.error_code,
                frame_type=error.frame_type,
                reason_phrase=error.reason_phrase,
            )
            return False
        return eliciting

    def _note(self, number: int, now: float, *, eliciting: bool) -> None:
        """Take note of a packet that was taken."""
        space = self._space
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._quic._ack_delay


def _datagrams(payload: bytes) -> list[bytes] | None:
    """Return what the DATAGRAM frames of a packet carry; None if anything else is in it, or nonsense."""
    found = []
    at, end = 0, len(payload)
    while at < end:
        begin = at + 3
        if payload[at] != _DATAGRAM_WITH_LENGTH or begin > end:
            return None
        length = payload[at + 1]
        if length < _TWO_BYTES:
            begin -= 1
        elif length < _FOUR_BYTES:
            length = (length - _TWO_BYTES) << 8 | payload[at + 2]
        else:
            return None
        at = begin + length
        if at > end:
            return None
        found.append(payload[begin:at])
    return found
