"""Streams that have nothing to do are not looked at, and nothing that one has to do is missed."""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from bench._virtual.peer import connect
from bench._virtual.world import World
from bridges.quic.inside.idle_streams import pass_over_idle_streams
from tests.impairment.core import Impairment, Profile

if TYPE_CHECKING:
    from aioquic.quic.events import QuicEvent

    from bench._virtual.peer import Peer

CLEAN = Profile(delay=0.01)
LOSSY = Profile(delay=0.01, loss=0.15, jitter=0.01)


class Ends:
    """Two connections, and what came to each of them."""

    def __init__(self, profile: Profile, seed: int = 1) -> None:
        self.world = World()
        paths = (Impairment(profile, f"{seed} {way}") for way in ("there", "back"))
        self.peers = connect(self.world, *paths, fit=pass_over_idle_streams)
        self.taken: list[Counter[int]] = [Counter(), Counter()]
        self.ended: list[set[int]] = [set(), set()]
        for number, peer in enumerate(self.peers):
            peer.on_event = lambda event, number=number: self._take(number, event)  # type: ignore[misc]
        self.run(1)

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def send(self, peer: Peer, stream_id: int, data: bytes, *, end: bool = False) -> None:
        peer.quic.send_stream_data(stream_id, data, end)
        peer.advance()

    def _take(self, number: int, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.taken[number][event.stream_id] += len(event.data)
            if event.end_stream:
                self.ended[number].add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.ended[number].add(event.stream_id)
        elif isinstance(event, StopSendingReceived):
            self.peers[number].quic.reset_stream(event.stream_id, 0)


def shown(peer: Peer) -> int:
    """How many streams the library looks at for a packet."""
    return len(list(peer.quic._streams.values()))


def test_streams_are_not_looked_at_while_they_have_nothing_to_do() -> None:
    ends = Ends(CLEAN)
    near, far = ends.peers
    for number in range(40):
        ends.send(near, 4 * number, b"hello")
    assert shown(near)
    ends.run(1)
    assert [shown(near), shown(far)] == [0, 0]
    assert [len(near.quic._streams), len(far.quic._streams)] == [40, 40]
    ends.send(far, 4 * 17, b"and back", end=True)
    assert shown(far) <= 1
    ends.run(1)
    assert ends.taken[0] == {4 * 17: 8}
    ends.send(near, 4 * 17, b"", end=True)
    ends.run(1)
    assert [len(near.quic._streams), len(far.quic._streams)] == [39, 39]
    assert near.quic._streams_queue == far.quic._streams_queue == []


def test_more_than_the_limits_of_a_stream_crosses_a_lossy_path() -> None:
    ends = Ends(LOSSY)
    near, _ = ends.peers
    ends.send(near, 0, bytes(1_500_000), end=True)
    ends.run(120)
    assert ends.taken[1] == {0: 1_500_000}
    assert ends.ended[1] == {0}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_with_streams_on_a_lossy_path_all_of_it_happens_and_all_is_forgotten(
    seed: int,
) -> None:
    ends, chance = Ends(LOSSY, seed), random.Random(seed)
    near, far = ends.peers
    sent: list[Counter[int]] = [Counter(), Counter()]
    streams = [4 * number + owner for number in range(12) for owner in (0, 1)]
    for stream_id in sorted(streams):
        ends.send(ends.peers[stream_id % 2], stream_id, b"first")
        sent[1 - stream_id % 2][stream_id] += 5
    ends.run(5)
    for _ in range(150):
        number, stream_id = chance.randrange(2), chance.choice(streams)
        size = chance.choice((1, 100, 5000))
        ends.send(ends.peers[number], stream_id, bytes(size))
        sent[1 - number][stream_id] += size
        ends.run(chance.choice((0, 0.01, 0.5)))
    ends.run(10)
    assert ends.taken == sent
    for stream_id in streams:
        match chance.randrange(3):
            case 0:
                near.quic.reset_stream(stream_id, 1)
                far.quic.reset_stream(stream_id, 1)
            case 1:
                near.quic.stop_stream(stream_id, 1)
                far.quic.stop_stream(stream_id, 1)
            case _:
                near.quic.send_stream_data(stream_id, b"", end_stream=True)
                far.quic.send_stream_data(stream_id, b"", end_stream=True)
        near.advance()
        far.advance()
        ends.run(chance.choice((0, 0.2)))
    ends.run(10)
    near.quic.send_ping(1)  # what is over is forgotten with the next packet
    far.quic.send_ping(1)
    near.advance()
    far.advance()
    ends.run(10)
    assert ends.ended == [set(streams), set(streams)]
    assert not near.quic._streams
    assert not far.quic._streams


def test_the_library_uses_its_table_of_streams_as_it_did_when_this_was_written() -> None:
    source = inspect.getsource(QuicConnection)
    uses = Counter(re.findall(r"self\._streams\b(\.\w+|\[)?", source))
    assert uses == {".get": 3, ".values": 1, ".pop": 1, "[": 2, "": 2}
    queue = Counter(re.findall(r"self\._streams_queue\b(\.\w+)?", source))
    assert queue == {".append": 2, ".extend": 1, "": 4}
    fates = Counter(re.findall(r"handler=stream\.(\w+\.on_\w+_delivery)", source))
    assert fates == {  # the second one of data is that of the handshake's streams
        "sender.on_data_delivery": 2,
        "sender.on_reset_delivery": 1,
        "receiver.on_stop_sending_delivery": 1,
    }
    assert source.count("handler=self._on_max_stream_data_delivery") == 1
