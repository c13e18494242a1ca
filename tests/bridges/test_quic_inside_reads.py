"""aioquic's private attributes are still where bridges.quic.inside.reads reads them. One test each."""

from __future__ import annotations

import ssl

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived, StreamReset

from bridges.quic import Certificate
from bridges.quic.certificate import fingerprint_of
from bridges.quic.inside import reads

CLIENT, SERVER = ("192.0.2.1", 1), ("192.0.2.2", 2)


class Wire:
    """Two aioquic cores joined by a wire that a test may cut; no socket, no clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.certificate = Certificate.self_signed("internals")
        self.client = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, server_name="x"
            )
        )
        self.client.connect(SERVER, now=self.now)
        self.server = QuicConnection(
            configuration=QuicConfiguration(
                is_client=False,
                alpn_protocols=["h3"],
                certificate=self.certificate.certificate,
                private_key=self.certificate.private_key,
            ),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )
        self.exchange()

    def exchange(self) -> None:
        """Let datagrams travel until nobody has more to say at once."""
        for _ in range(10):
            self.now += 0.05
            for sender, receiver, address in (
                (self.client, self.server, CLIENT),
                (self.server, self.client, SERVER),
            ):
                for data, _ in sender.datagrams_to_send(now=self.now):
                    receiver.receive_datagram(data, address, now=self.now)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_peer_certificate(wire: Wire) -> None:
    certificate = reads.peer_certificate(wire.client)
    assert certificate is not None
    assert fingerprint_of(certificate) == wire.certificate.fingerprint
    assert reads.peer_certificate(wire.server) is None


def test_termination_is_known_before_the_public_event(wire: Wire) -> None:
    assert reads.termination(wire.client) is None
    wire.server.close(error_code=7, reason_phrase="enough")
    for data, _ in wire.server.datagrams_to_send(now=wire.now):
        wire.client.receive_datagram(data, SERVER, now=wire.now)
    ending = reads.termination(wire.client)
    assert ending is not None
    assert (ending.error_code, ending.reason_phrase) == (7, "enough")


def test_unacknowledged(wire: Wire) -> None:
    assert reads.unacknowledged(wire.client, 0) == 0
    wire.client.send_stream_data(0, b"x" * 100)
    assert reads.unacknowledged(wire.client, 0) == 100
    for data, _ in wire.client.datagrams_to_send(now=wire.now):
        wire.server.receive_datagram(data, CLIENT, now=wire.now)
    assert reads.unacknowledged(wire.client, 0) == 100
    wire.exchange()
    assert reads.unacknowledged(wire.client, 0) == 0


def test_stream_exists_until_both_halves_are_over(wire: Wire) -> None:
    assert not reads.stream_exists(wire.client, 0)
    wire.client.send_stream_data(0, b"x", end_stream=True)
    assert reads.stream_exists(wire.client, 0)
    wire.exchange()
    assert reads.stream_exists(wire.client, 0)
    wire.server.send_stream_data(0, b"y", end_stream=True)
    wire.exchange()
    assert not reads.stream_exists(wire.client, 0)
    assert not reads.stream_exists(wire.server, 0)


def test_may_open_stream_up_to_the_peers_limit(wire: Wire) -> None:
    for _ in range(128):
        assert reads.may_open_stream(wire.client)
        wire.client.send_stream_data(wire.client.get_next_available_stream_id(), b"")
    assert not reads.may_open_stream(wire.client)


def test_round_trip_is_what_the_exchange_took(wire: Wire) -> None:
    fresh = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    assert reads.round_trip(fresh) is None
    wire.client.send_ping(1)
    wire.exchange()
    measured = reads.round_trip(wire.client)
    assert measured is not None
    assert 0 < measured.seconds < 0.2
    assert measured.variation >= 0


def test_received_bytes_count_holes_and_held_bytes_tell_them(wire: Wire) -> None:
    assert reads.received_bytes(wire.server) == 0
    wire.client.send_stream_data(0, b"a" * 1000)
    lost = wire.client.datagrams_to_send(now=wire.now)
    assert lost
    wire.client.send_stream_data(0, b"b" * 500)
    wire.now += 0.001
    for data, _ in wire.client.datagrams_to_send(now=wire.now):
        wire.server.receive_datagram(data, CLIENT, now=wire.now)
    assert reads.received_bytes(wire.server) == 1500
    assert reads.held_bytes(wire.server, 0) == 1500
    assert reads.held_bytes(wire.server, 4) == 0
    assert not any(isinstance(event, StreamDataReceived) for event in drain(wire.server))
    wire.client.reset_stream(0, 9)
    wire.exchange()
    assert any(isinstance(event, StreamReset) for event in drain(wire.server))
    assert reads.held_bytes(wire.server, 0) in {0, 1500}


def test_datagram_bytes_are_what_fits_into_a_packet_and_the_peer_takes(wire: Wire) -> None:
    assert reads.datagram_bytes(wire.client) == 0, "the peer takes none"
    for taken, most in ((65536, 1200 - 44), (500, 497)):
        wire.client._remote_max_datagram_frame_size = taken
        assert reads.datagram_bytes(wire.client) == most
    wire.client._remote_max_datagram_frame_size = 65536
    wire.client.send_datagram_frame(bytes(reads.datagram_bytes(wire.client)))
    assert wire.client.datagrams_to_send(now=wire.now), "the largest one leaves"


def drain(quic: QuicConnection) -> list[object]:
    events: list[object] = []
    while (event := quic.next_event()) is not None:
        events.append(event)
    return events
