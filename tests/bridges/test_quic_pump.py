"""The pump on real sockets: what goes in comes out, in few calls or in many; full and refusing sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.quic.pump import FULL, OVERFLOWED, REFUSED, Pump
from bridges.quic.segments import MAX_RUN, MAX_RUN_BYTES, runs, split
from bridges.quic.sockets import udp_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT = 10.0


class Taker:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.sources: set[Any] = set()
        self.turns: Counter[float] = Counter()
        self.errors: list[OSError] = []
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def count(self, name: str, by: int = 1, /) -> None:
        self.counts[name] += by
        self._changed.set()

    def datagram_received(self, data: bytes, address: Any, now: float) -> None:
        self.data.append(data)
        self.sources.add(address)
        self.turns[now] += 1
        self._changed.set()

    def error_received(self, error: OSError) -> None:
        self.errors.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[Taker], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class Stubborn:
    """A socket that takes no runs, or nothing at all."""

    def __init__(self, udp: socket.socket, *, refuses_runs: int = 0, blocked: bool = False) -> None:
        self._udp = udp
        self._refuses_runs = refuses_runs
        self.blocked = blocked
        self.runs = 0
        self.singles = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._udp, name)

    def sendmsg(self, *args: Any) -> int:
        self._check()
        if self._refuses_runs:
            raise OSError(self._refuses_runs, "not in one piece")
        self.runs += 1
        return self._udp.sendmsg(*args)

    def sendto(self, *args: Any) -> int:
        self._check()
        self.singles += 1
        return self._udp.sendto(*args)

    def _check(self) -> None:
        if self.blocked:
            raise BlockingIOError


def bound(family: socket.AddressFamily = socket.AF_INET, *, buffer_bytes: int = 1 << 20) -> socket.socket:
    udp = udp_socket(family, buffer_bytes=buffer_bytes)
    udp.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
    return udp


@contextmanager
def pumping(udp: Any, taker: Taker, **options: Any) -> Iterator[Pump]:
    pump = Pump(udp, taker, count=taker.count, **options)
    try:
        yield pump
    finally:
        pump.close()


MIXED = [b"a" * 1200] * 70 + [b"b" * 300, b"c" * 900, b"d" * 900, b"e" * 1, b"f" * 1200]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("offload", [True, False])
async def test_datagrams_arrive_whole_and_in_order(family: socket.AddressFamily, *, offload: bool) -> None:
    here, there = Taker(), Taker()
    near, far = bound(family), bound(family)
    address = far.getsockname()
    with pumping(near, here, offload=offload) as pump, pumping(far, there, offload=offload) as other:
        pump.send(MIXED, address)
        await there.until(lambda r: len(r.data) == len(MIXED))
        assert there.data == MIXED
        (source,) = there.sources
        assert source[:2] == near.getsockname()[:2]
        assert pump.port == source[1]
        other.send([b"back"], source)
        await here.until(lambda r: r.data == [b"back"])
        assert not here.counts
        assert not there.counts


async def test_the_kernel_cuts_and_joins() -> None:
    here, there = Taker(), Taker()
    near, far = Stubborn(bound()), bound()
    address = far.getsockname()
    with pumping(near, here) as pump, pumping(far, there):
        assert pump.segments
        pump.send([b"x" * 1000] * 60, address)
        await there.until(lambda r: len(r.data) == 60)
        assert (near.runs, near.singles) == (1, 0)
        assert max(there.turns.values()) > 1, "several came with one call"


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
async def test_a_kernel_that_takes_no_runs_gets_single_datagrams(code: int) -> None:
    here, there = Taker(), Taker()
    near, far = Stubborn(bound(), refuses_runs=code), bound()
    address = far.getsockname()
    with pumping(near, here) as pump, pumping(far, there):
        pump.segments = True
        pump.send(MIXED, address)
        await there.until(lambda r: len(r.data) == len(MIXED))
        assert there.data == MIXED
        assert near.runs == 0
        assert pump.segments == (code == errno.EMSGSIZE), "too long for one way says nothing of the others"
        assert not here.counts


async def test_what_a_full_socket_does_not_take_waits_and_no_more_than_that() -> None:
    here, there = Taker(), Taker()
    near, far = Stubborn(bound(), blocked=True), bound()
    address = far.getsockname()
    with pumping(near, here, offload=False, max_waiting=2500) as pump, pumping(far, there):
        for number in range(5):
            pump.send([bytes([number]) * 1000], address)
        assert here.counts == {FULL: 3}
        near.blocked = False
        await there.until(lambda r: len(r.data) == 2)
        assert [data[0] for data in there.data] == [0, 1]
        pump.send([b"again"], address)
        await there.until(lambda r: r.data[-1] == b"again")
        assert here.counts == {FULL: 3}


async def test_closing_drops_what_waits_and_twice_is_once() -> None:
    here = Taker()
    near = Stubborn(bound(), blocked=True)
    with pumping(near, here) as pump:
        pump.send([b"x"], ("127.0.0.1", 9))
        pump.close()
        pump.send([b"x"], ("127.0.0.1", 9))
        assert near.fileno() == -1
        assert not here.counts


async def test_what_the_kernel_will_not_send_is_counted_and_the_rest_goes_on() -> None:
    here, there = Taker(), Taker()
    near, far = bound(), bound()
    address = far.getsockname()
    with pumping(near, here) as pump, pumping(far, there):
        pump.send([b"x" * 70_000, b"fits"], address)
        await there.until(lambda r: r.data == [b"fits"])
        assert here.counts == {REFUSED: 1}
        await here.until(lambda r: r.errors)
        assert here.errors[0].errno == errno.EMSGSIZE


async def test_a_connected_socket_hears_that_nobody_is_there() -> None:
    nobody = bound()
    address = nobody.getsockname()
    nobody.close()
    here = Taker()
    udp = udp_socket(socket.AF_INET, buffer_bytes=1 << 16)
    udp.connect(address)
    with pumping(udp, here) as pump:
        pump.send([b"anybody?"])
        await here.until(lambda r: r.errors)
        assert isinstance(here.errors[0], ConnectionRefusedError)


async def test_what_was_not_fetched_in_time_is_counted() -> None:
    there = Taker()
    far = bound(buffer_bytes=1 << 16)
    address = far.getsockname()
    with pumping(far, there, offload=False), bound() as sender:
        for _ in range(300):  # nobody fetches: the loop has no turn
            sender.sendto(b"x" * 1000, address)
        await there.until(lambda r: r.data)
        sender.sendto(b"after", address)  # a datagram says what was lost before it
        await there.until(lambda r: r.data[-1] == b"after")
        assert len(there.data) < 301
        assert there.counts == {OVERFLOWED: 301 - len(there.data)}


async def test_when_a_datagram_came_is_known_however_late_it_is_fetched() -> None:
    there = Taker()
    far = bound()
    loop = asyncio.get_running_loop()
    with pumping(far, there), bound() as sender:
        sender.sendto(b"x", far.getsockname())
        came = loop.time()
        time.sleep(0.1)  # noqa: ASYNC251 - the loop has no turn
        await there.until(lambda r: r.data)
        [at] = there.turns
        assert came - 0.05 < at < came + 0.05


async def test_others_have_their_turn_while_much_comes() -> None:
    there = Taker()
    far = bound()
    address = far.getsockname()
    with pumping(far, there, offload=False, per_turn=8), bound() as sender:
        for _ in range(40):
            sender.sendto(b"x", address)
        seen = []
        while len(there.data) < 40:
            await asyncio.sleep(0)
            seen.append(len(there.data))
        assert max(later - earlier for earlier, later in zip([0, *seen], seen, strict=False)) <= 8


datagrams = st.lists(st.integers(1, 3000).map(bytes) | st.just(bytes(1200)), max_size=200)


@given(datagrams)
def test_runs_are_what_the_kernel_can_cut(given: list[bytes]) -> None:
    found = list(runs(given))
    assert [datagram for run in found for datagram in run] == given
    for run in found:
        assert 1 <= len(run) <= MAX_RUN
        assert sum(map(len, run)) <= max(MAX_RUN_BYTES, len(run[0]))
        assert all(len(datagram) == len(run[0]) for datagram in run[:-1])
        assert len(run[-1]) <= len(run[0])
        assert list(split(b"".join(run), len(run[0]))) == run


@given(st.binary(max_size=5000), st.integers(0, 1500))
def test_splitting_loses_nothing(data: bytes, size: int) -> None:
    parts = list(split(data, size))
    assert b"".join(parts) == data
    assert all(len(part) == size for part in parts[:-1])
