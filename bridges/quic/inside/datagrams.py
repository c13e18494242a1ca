"""Datagrams on their way out: from a source that is asked at the last moment, and by the short way mostly.

aioquic (1.7) has a deque of datagrams and does not tell what becomes of them. And it builds each packet as if
it could hold anything, which is most of the work of sending media. Here a connection that has nothing to send
but datagrams builds its packets itself, byte for byte as the library would; whatever else is due is left to
the library. tests/bridges/test_quic_inside_short_ways.py compares both.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from aioquic._crypto import PACKET_NUMBER_LENGTH_MAX, SAMPLE_LENGTH
from aioquic.buffer import encode_uint_var, size_uint_var
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.packet import PACKET_FIXED_BIT, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import (
    PACKET_NUMBER_SEND_SIZE,
    QuicDeliveryHandler,
    QuicDeliveryState,
    QuicSentPacket,
)
from aioquic.tls import Epoch

from bridges.quic.inside.recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import Limit, NetworkAddress, QuicNetworkPath
    from aioquic.quic.crypto import CryptoPair
    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.recovery import QuicPacketSpace

__all__ = ["DatagramSource", "replace_datagrams"]

_ACK: Final = bytes((QuicFrameType.ACK,))
_MICROSECONDS: Final = 1_000_000
_TYPE: Final = int(QuicFrameType.DATAGRAM_WITH_LENGTH)
_ONE_BYTE: Final = 1 << 6
_TWO_BYTES: Final = 1 << 14
"""Lengths below that take so many bytes (RFC 9000, section 16)."""
_NUMBERS: Final = 1 << 8 * PACKET_NUMBER_SEND_SIZE
_PROTECTED: Final = 0x1F
_SAMPLE: Final = slice(
    PACKET_NUMBER_LENGTH_MAX - PACKET_NUMBER_SEND_SIZE,
    PACKET_NUMBER_LENGTH_MAX - PACKET_NUMBER_SEND_SIZE + SAMPLE_LENGTH,
)
"""Where in a sealed payload the sample for the header's protection is (RFC 9001, section 5.4.2)."""

_Handlers = list[tuple[QuicDeliveryHandler, Any]]


class DatagramSource(Protocol):
    """Where DATAGRAM frames come from."""

    def head(self) -> bytes | None:
        """Return what is to be sent next; None: nothing."""

    def taken(self) -> Callable[[bool], None]:
        """Remove what head() returned last, as it is on its way; the result is told whether it arrived."""

    def knock(self) -> None:
        """Take note that the path is silent and some packets go out to find out whether it still is."""


def replace_datagrams(quic: QuicConnection, source: DatagramSource) -> None:
    """Let a connection take its datagrams from `source`, and tell what becomes of each."""

    def write(builder: QuicPacketBuilder, data: bytes, frame_type: int) -> None:
        capacity = 1 + size_uint_var(len(data)) + len(data)
        outcome: list[Callable[[bool], None]] = []
        buffer = builder.start_frame(
            frame_type, capacity=capacity, handler=_settle_all, handler_args=(outcome,)
        )
        buffer.push_uint_var(len(data))
        buffer.push_bytes(data)
        outcome.append(source.taken())

    quic._datagrams_pending = _Datagrams(source)  # type: ignore[assignment]  # as much of a deque as is used
    quic._write_datagram_frame = write  # type: ignore[method-assign, assignment]  # the result is not used
    recovery = quic._loss
    if isinstance(recovery, Recovery):
        recovery.knock = source.knock
        way_out = _Sending(quic, recovery, source)
        quic.datagrams_to_send = way_out.datagrams_to_send  # type: ignore[method-assign]


class _Datagrams:
    """A source of datagrams, as aioquic uses its own deque."""

    def __init__(self, source: DatagramSource) -> None:
        self._source = source
        self._head: bytes | None = None

    def __bool__(self) -> bool:
        # Asked once for each: a moment later it may be too late for that one, and there is another or none.
        self._head = self._source.head()
        return self._head is not None

    def __getitem__(self, index: int) -> bytes:
        assert self._head is not None
        return self._head

    def popleft(self) -> None:
        """Do nothing: writing the frame has taken it."""


def _settle_all(delivery: QuicDeliveryState, outcome: list[Callable[[bool], None]]) -> None:
    for tell in outcome:
        tell(delivery is QuicDeliveryState.ACKED)


def _settle(delivery: QuicDeliveryState, tell: Callable[[bool], None]) -> None:
    tell(delivery is QuicDeliveryState.ACKED)


class _Sending:
    """One connection's way out."""

    def __init__(self, quic: QuicConnection, recovery: Recovery, source: DatagramSource) -> None:
        self._quic = quic
        self._recovery = recovery
        self._source = source
        self._send = partial(QuicConnection.datagrams_to_send, quic)
        self._path: QuicNetworkPath | None = None
        """The one that the handshake was done on; None before its end."""
        self._crypto: CryptoPair
        self._space: QuicPacketSpace
        self._first = 0
        """The first byte of packets, but for the key's phase."""
        self._max_data: Limit
        self._max_streams: tuple[Limit, Limit]

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return what is to be sent, as the library's own method does."""
        path = self._path
        if path is None:
            self._look()
        elif self._is_usual(path, now):
            return self._packets(path, now)
        return self._send(now)

    def _look(self) -> None:
        """Take note of what does not change any more once the handshake is confirmed."""
        quic = self._quic
        if quic._handshake_confirmed and quic._quic_logger is None and quic._network_paths[0].is_validated:
            self._crypto = quic._cryptos[Epoch.ONE_RTT]
            self._space = quic._spaces[Epoch.ONE_RTT]
            self._max_data = quic._local_max_data
            self._max_streams = (quic._local_max_streams_bidi, quic._local_max_streams_uni)
            self._path = quic._network_paths[0]

    def _is_usual(self, path: QuicNetworkPath, now: float) -> bool:
        """Return whether nothing may have to be sent but datagrams, and that everything has come so far."""
        quic, space = self._quic, self._space
        return (
            (space.ack_at is None or space.ack_at > now or len(space.ack_queue) == 1)
            and not quic._probe_pending
            and not self._crypto._update_key_requested
            and not quic._ping_pending
            and (not quic._streams_queue or not quic._streams.values())
            and quic._network_paths[0] is path
            and len(quic._network_paths) == 1
            and quic._state is QuicConnectionState.CONNECTED
            and not quic._close_pending
            and not path.remote_challenges
            and not quic._handshake_done_pending
            and not quic._streams_blocked_pending
            and not quic._retire_connection_ids
            and quic._remote_preferred_address is None
            and quic._crypto_streams[Epoch.ONE_RTT].sender.buffer_is_empty
            and all(each.was_sent for each in quic._host_cids)
            and not self._limit_is_due()
        )

    def _limit_is_due(self) -> bool:
        """Return whether the peer may have to be told of a higher limit."""
        data = self._max_data
        return (
            data.used * 2 > data.value
            or data.value != data.sent
            or any(limit.sent - limit.used < limit.value - limit.sent for limit in self._max_streams)
        )

    def _packets(self, path: QuicNetworkPath, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Build packets as long as there is something to send, and it may be sent."""
        quic, loss, space = self._quic, self._recovery, self._space
        room = loss.congestion_window - loss.bytes_in_flight
        cid = quic._peer_cid.cid
        overhead = 1 + len(cid) + PACKET_NUMBER_SEND_SIZE + self._crypto.aead_tag_size
        self._first = PACKET_FIXED_BIT | quic._spin_bit << 5 | PACKET_NUMBER_SEND_SIZE - 1
        number = quic._packet_number
        sent: list[tuple[bytes, NetworkAddress]] = []
        packets: list[QuicSentPacket] = []
        while True:
            if space.ack_at is None or space.ack_at >= now:
                quic._pacing_at = ready_at = loss._pacer.next_send_time(now)
                if ready_at is not None:
                    break
            handlers: _Handlers = []
            start = self._acknowledgement(now, handlers)
            space_left = min(quic._max_datagram_size, room) - overhead - len(start)
            eliciting, payload = self._frames(space_left, start, handlers)
            if not handlers:
                break
            data = self._sealed(payload, cid, number)
            size = len(data)
            packets.append(
                QuicSentPacket(
                    epoch=Epoch.ONE_RTT,
                    in_flight=eliciting,
                    is_ack_eliciting=eliciting,
                    is_crypto_packet=False,
                    packet_number=number,
                    packet_type=QuicPacketType.ONE_RTT,
                    sent_time=now,
                    sent_bytes=size,
                    delivery_handlers=handlers,
                )
            )
            sent.append((data, path.addr))
            path.bytes_sent += size
            room -= size if eliciting else 0
            number += 1
            loss._pacer.update_after_send(now=now)
        if packets:
            self._note(packets, number, now)
        return sent

    def _acknowledgement(self, now: float, handlers: _Handlers) -> bytes:
        """Return a frame that acknowledges what came (RFC 9000, section 19.3), if that is due."""
        quic, space = self._quic, self._space
        if space.ack_at is None or space.ack_at > now:
            return b""
        assert space.largest_received_time is not None
        delay = int((now - space.largest_received_time) * _MICROSECONDS) >> quic._local_ack_delay_exponent
        (numbers,) = space.ack_queue
        space.ack_at = None
        handlers.append((quic._on_ack_delivery, (space, space.largest_received_packet)))
        fields = (numbers.stop - 1, delay, 0, numbers.stop - 1 - numbers.start)
        return _ACK + b"".join(map(encode_uint_var, fields))

    def _frames(self, space: int, start: bytes, handlers: _Handlers) -> tuple[bool, bytes]:
        """Return whether there are datagrams, and what a packet is to carry that begins with `start`.

        Who is told of its fate is added to `handlers`.
        """
        source = self._source
        frames = [start]
        while (data := source.head()) is not None:
            begin = _begin(len(data))
            space -= len(begin) + len(data)
            if space < 0:
                break
            frames += (begin, data)
            handlers.append((_settle, (source.taken(),)))
        return len(frames) > 1, b"".join(frames)

    def _sealed(self, payload: bytes, cid: bytes, number: int) -> bytes:
        """Return a packet, as RFC 9001, sections 5.3 and 5.4, and RFC 9000, section 17.3.1, have it."""
        context = self._crypto.send
        assert context.aead is not None
        assert context.hp is not None
        first = self._first | context.key_phase << 2
        shortened = number % _NUMBERS
        header = bytes((first,)) + cid + shortened.to_bytes(PACKET_NUMBER_SEND_SIZE, "big")
        sealed = context.aead.encrypt(payload, header, number)
        mask = context.hp._mask(sealed[_SAMPLE])
        shortened ^= int.from_bytes(mask[1 : 1 + PACKET_NUMBER_SEND_SIZE], "big")
        return b"".join(
            (
                bytes((first ^ mask[0] & _PROTECTED,)),
                cid,
                shortened.to_bytes(PACKET_NUMBER_SEND_SIZE, "big"),
                sealed,
            )
        )

    def _note(self, packets: list[QuicSentPacket], number: int, now: float) -> None:
        """Take note of packets that are on their way."""
        quic, loss, space = self._quic, self._recovery, self._space
        quic._packet_number = number
        for packet in packets:
            loss.on_packet_sent(packet=packet, space=space)
        if not quic._ack_eliciting_sent_since_receipt and any(each.is_ack_eliciting for each in packets):
            quic._close_at = now + quic._idle_timeout()
            quic._ack_eliciting_sent_since_receipt = True


def _begin(length: int) -> bytes:
    """Return what stands before the data of a DATAGRAM frame (RFC 9221, section 4)."""
    if length < _ONE_BYTE:
        return bytes((_TYPE, length))
    if length < _TWO_BYTES:
        return (_TYPE << 16 | _TWO_BYTES | length).to_bytes(3, "big")
    return bytes((_TYPE,)) + encode_uint_var(length)
