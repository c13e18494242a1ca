"""How large a datagram the path takes: the search by itself, and real connections over paths that differ."""

from __future__ import annotations

import math
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.quic import QuicSettings
from bridges.quic.path_mtu import Fate, PathMtu
from bridges.quic.probing import udp_payload
from bridges.quic.sockets import udp_socket
from tests.bridges.test_quic import listening
from tests.bridges.test_quic_datagrams import Datagrams
from tests.impairment.core import Cause, Profile
from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridges.quic import Connection

BASE, CEILING = 1200, 1472


class Searched:
    """A search over a path that carries so much, driven until it rests."""

    def __init__(self, carries: int, *, ceiling: int = CEILING) -> None:
        self.carries = carries
        self.now = 1.0
        self.probes: list[int] = []
        self.path = PathMtu(BASE, ceiling)
        self.go()

    def go(self) -> None:
        """Send probes, each settled a moment later, until none is due."""
        while (size := self.path.probe(self.now)) is not None:
            assert self.path.probe(self.now + 1e6) is None, "one at a time"
            assert self.path.size < size <= CEILING
            self.probes.append(size)
            self.now += 0.1
            self.path.settled(self.now, Fate.ARRIVED if size <= self.carries else Fate.LOST)

    def lose(self, count: int, *, every: float = 0.01) -> None:
        """Lose large packets that were sent one after the other."""
        for _ in range(count):
            self.now += every
            self.path.lost(self.now + 0.1, self.now)


def test_most_paths_take_what_is_tried_first() -> None:
    search = Searched(1472)
    assert search.probes == [1472]
    assert search.path.size == 1472
    assert search.path.due == math.inf


def test_a_probe_may_get_lost_without_being_too_large() -> None:
    path = PathMtu(BASE, CEILING)
    for fate in (Fate.LOST, Fate.LOST, Fate.ARRIVED):
        assert path.probe(1.0) == CEILING
        path.settled(1.0, fate)
    assert path.size == CEILING


@given(st.integers(0, 3000), st.integers(BASE - 100, CEILING))
def test_what_is_found_passes_and_is_nearly_all_that_does(carries: int, ceiling: int) -> None:
    search = Searched(carries, ceiling=ceiling)
    best = max(BASE, min(carries, ceiling))
    assert best - 16 < search.path.size <= best
    assert len(search.probes) <= 3 * 6
    assert search.path.due == math.inf or search.path.due >= search.now + 500


def test_a_path_is_looked_at_again_after_ten_minutes() -> None:
    search = Searched(1300)
    assert 1284 < search.path.size <= 1300
    search.carries, search.now = 1472, search.path.due
    search.go()
    assert search.path.size == 1472


def test_while_nothing_arrives_no_size_is_blamed() -> None:
    path = PathMtu(BASE, CEILING)
    for now in range(10):
        assert path.probe(now) == CEILING
        path.settled(now, Fate.UNKNOWN)
        assert path.probe(now + 0.9) is None
    path.probe(10)
    path.settled(10, Fate.ARRIVED)
    assert path.size == CEILING


def test_large_packets_that_vanish_one_after_the_other_are_a_black_hole() -> None:
    search = Searched(1472)
    search.carries = 1400
    search.lose(7)
    assert search.path.size == BASE
    search.lose(50)  # those that were under way
    assert search.path.size == BASE
    search.go()
    assert search.path.size == BASE, "not at once"
    search.now = search.path.due
    search.go()
    assert 1384 < search.path.size <= 1400
    assert search.probes.count(1472) == 1 + 3, "what was used before may pass after all, and is tried first"


def test_a_burst_is_no_black_hole_and_one_taken_for_it_does_no_harm() -> None:
    search = Searched(1472)
    search.lose(30, every=0.001)
    search.path.acked(search.now)
    search.lose(5, every=0.03)
    search.path.acked(search.now)
    assert search.path.size == 1472
    search.lose(7)
    assert search.path.size == BASE
    search.now = search.path.due
    search.go()
    assert search.probes == [1472, 1472]
    assert search.path.size == 1472


def test_who_falls_into_black_holes_again_and_again_goes_back_ever_later() -> None:
    search = Searched(1472)
    pauses = []
    for _ in range(4):
        search.lose(7)
        pauses.append(search.path.due - search.now)
        search.now = search.path.due
        search.go()
    assert pauses == sorted(pauses)
    assert pauses[-1] > 7
    search.now += 100
    search.lose(7)
    assert search.path.due - search.now < 2


@pytest.mark.parametrize(
    ("host", "payload"), [("192.0.2.1", 1472), ("2001:db8::1%eth0", 1452), ("::ffff:192.0.2.1", 1472)]
)
def test_a_packet_carries_less_over_ipv6(host: str, payload: int) -> None:
    assert udp_payload(host, 1500) == payload


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_is_sent_is_not_fragmented(family: socket.AddressFamily) -> None:
    with udp_socket(family, buffer_bytes=1 << 16) as udp:
        assert udp.getsockopt(socket.IPPROTO_IP, 10) == 3
        if family == socket.AF_INET6:
            assert udp.getsockopt(socket.IPPROTO_IPV6, 23) == 3


def test_after_a_second_in_which_nothing_arrives_smaller_packets_are_tried() -> None:
    path = PathMtu(1200, 1500)
    path.silent(0.0, 5.0)
    assert path.due == 0.0, "they are small"
    path.probe(0.0)
    path.settled(0.0, Fate.ARRIVED)
    path.silent(10.0, 0.9)
    assert path.size == 1500
    path.silent(10.1, 1.0)
    assert path.size == 1200
    assert path.due == pytest.approx(11.1)


# --- real connections -----------------------------------------------------------------------------


@asynccontextmanager
async def line(path: Profile, *, path_mtu: int = 1500) -> AsyncIterator[tuple[Connection, Datagrams, Relay]]:
    """Dial through a relay; return the dialled connection and what it sends."""
    async with (
        listening(QuicSettings(path_mtu=path_mtu)) as pair,
        Relay.running(("127.0.0.1", pair.listener.port), there=path, seed=1) as relay,
    ):
        pair.port = relay.port
        connection, _, theirs = await pair.connect()
        assert theirs.connection is not None
        ours, there = Datagrams(), Datagrams()
        ours.largest.append(connection.max_datagram_bytes)
        theirs.connection.use_datagrams(there, there.take)
        connection.use_datagrams(ours, ours.take)
        yield connection, ours, relay
        assert connection.max_datagram_bytes == ours.largest[-1]
        assert not connection.closed


async def test_a_path_is_used_as_it_is() -> None:
    async with line(Profile(delay=0.005)) as (_, datagrams, _):
        await datagrams.until(lambda: datagrams.largest[-1] > 1400)
        assert datagrams.largest[0] < 1200
        assert len(datagrams.largest) == 2


async def test_a_path_that_takes_less_is_used_as_far_as_it_goes() -> None:
    async with line(Profile(delay=0.002, mtu=1300)) as (_, datagrams, relay):
        await datagrams.until(lambda: datagrams.largest[-1] - datagrams.largest[0] > 1300 - 16 - 1200)
        assert datagrams.largest[-1] - datagrams.largest[0] <= 1300 - 1200
        assert relay.there.lost[Cause.SIZE] >= 3


async def test_a_path_that_comes_to_take_less_is_noticed() -> None:
    async with line(Profile(delay=0.005)) as (connection, datagrams, relay):
        await datagrams.until(lambda: datagrams.largest[-1] > 1400)
        relay.there.profile = Profile(delay=0.005, mtu=1250)

        async def send() -> list[bool]:
            """Send as much as fits, and something small behind it; return what has arrived."""
            datagrams.outcomes.clear()
            datagrams.waiting = [bytes(datagrams.largest[-1]), b"small"]
            connection.datagrams_waiting()
            await datagrams.until(lambda: len(datagrams.outcomes) == 2)
            return datagrams.outcomes

        while datagrams.largest[-1] > 1200:
            await send()
        while not all(await send()):
            pass


async def test_nothing_is_tried_where_nothing_is_to_be() -> None:
    async with line(Profile(mtu=1200), path_mtu=1200) as (connection, datagrams, relay):
        datagrams.waiting = [bytes(1000)] * 50
        connection.datagrams_waiting()
        await datagrams.until(lambda: len(datagrams.outcomes) == 50)
        assert len(datagrams.largest) == 1
        assert relay.there.lost[Cause.SIZE] == 0
