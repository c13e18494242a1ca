"""The relay with real datagrams: what passes, and where. What the path does to them is the core's."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.impairment.__main__ import main
from tests.impairment.core import Cause, Hole, Profile, Rebinding
from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.impairment.relay import Address

WAIT = 10.0


class Peer(asyncio.DatagramProtocol):
    """One end. Keeps what comes; as server answers everything."""

    def __init__(self, *, echoes: bool) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        self.port = 0
        self._echoes = echoes
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def there(cls, *, echoes: bool = False, remote: Address | None = None) -> AsyncIterator[Peer]:
        transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(echoes=echoes), local_addr=("127.0.0.1", 0), remote_addr=remote
        )
        peer.transport = transport
        peer.port = transport.get_extra_info("sockname")[1]
        try:
            yield peer
        finally:
            transport.close()

    transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.append((data, addr))
        self._changed.set()
        if self._echoes:
            self.transport.sendto(data, addr)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.transport.sendto(b"%d" % number)

    @property
    def numbers(self) -> list[int]:
        return [int(data) for data, _ in self.heard]

    @property
    def callers(self) -> list[Address]:
        return [address for _, address in self.heard]

    async def heard_at_least(self, count: int) -> None:
        await self.until(lambda: len(self.heard) >= count)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def test_datagrams_pass_both_ways_and_clients_are_told_apart() -> None:
    async with (
        Peer.there(echoes=True) as server,
        Relay.running(("127.0.0.1", server.port), there=Profile(delay=0.01)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as one,
        Peer.there(remote=("127.0.0.1", relay.port)) as other,
    ):
        one.send(1, 2, 3)
        other.send(7)
        await one.until(lambda: len(one.heard) == 3)
        await other.until(lambda: len(other.heard) == 1)
        assert one.numbers == [1, 2, 3]
        assert other.numbers == [7]
        assert len(set(server.callers)) == relay.clients == 2
        assert relay.there.sent == relay.back.sent == 4


async def test_the_path_is_the_cores() -> None:
    async with (
        Peer.there(echoes=True) as server,
        Relay.running(("127.0.0.1", server.port), there=Profile(duplicate=1), back=Profile(loss=1)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        client.send(1, 2)
        await server.heard_at_least(4)
        assert sorted(server.numbers) == [1, 1, 2, 2]
        relay.back.profile = Profile()
        client.send(3)
        await client.until(lambda: client.numbers.count(3) == 2)
        assert client.numbers == [3, 3]


async def test_rebound_clients_come_from_elsewhere_and_old_addresses_are_deaf() -> None:
    async with (
        Peer.there() as server,
        Relay.running(("127.0.0.1", server.port)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        client.send(1)
        await server.until(lambda: len(server.heard) == 1)
        relay.rebind()
        client.send(2)
        await server.until(lambda: len(server.heard) == 2)
        old, new = server.callers
        assert old != new
        server.transport.sendto(b"8", old)
        server.transport.sendto(b"9", new)
        await client.until(lambda: client.heard)
        assert client.numbers == [9]
        assert relay.rebound == 1


async def test_a_nat_forgets_by_itself() -> None:
    async with (
        Peer.there(echoes=True) as server,
        Relay.running(("127.0.0.1", server.port), rebinding=Rebinding(every=0.02)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        async with asyncio.timeout(WAIT):
            while len(set(server.callers)) < 3:
                client.send(1)
                await server.heard_at_least(len(server.heard) + 1)
        assert relay.rebound >= 2


async def test_a_cut_swallows_and_ends() -> None:
    async with (
        Peer.there(echoes=True) as server,
        Relay.running(("127.0.0.1", server.port)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        relay.cut(0.05)
        client.send(1)
        async with asyncio.timeout(WAIT):
            while not client.heard:
                client.send(2)
                await asyncio.sleep(0)
        assert set(server.numbers) == {2}


async def test_too_much_under_way_is_dropped_and_counted() -> None:
    async with (
        Peer.there() as server,
        Relay.running(("127.0.0.1", server.port), there=Profile(delay=0.3), max_waiting=3) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        client.send(*range(5))
        await server.until(lambda: len(server.heard) == 3)
        assert server.numbers == [0, 1, 2]
        assert relay.overflowed == 2


async def test_the_client_that_was_silent_longest_is_forgotten() -> None:
    async with (
        Peer.there() as server,
        Relay.running(("127.0.0.1", server.port), max_clients=2) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as one,
        Peer.there(remote=("127.0.0.1", relay.port)) as two,
        Peer.there(remote=("127.0.0.1", relay.port)) as three,
    ):
        for n, client in enumerate([one, two, one, three, one, two]):
            client.send(n)
            await server.heard_at_least(n + 1)
        assert relay.clients == 2
        places = server.callers
        assert places[0] == places[2] == places[4]
        assert places[1] != places[5]


async def test_nobody_listening_harms_nothing() -> None:
    async with Peer.there() as server:
        port = server.port
    async with (
        Relay.running(("127.0.0.1", port)) as relay,
        Peer.there(remote=("127.0.0.1", relay.port)) as client,
    ):
        async with asyncio.timeout(WAIT):
            while not relay.overflowed:  # the second one meets the kernel's answer to the first
                client.send(1)
                await asyncio.sleep(0)


async def test_the_command_relays_and_says_what_became_of_it() -> None:
    async with Peer.there(echoes=True) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.impairment", "0", "--to", f"127.0.0.1:{server.port}"),
            *("delay=1", "--back", "loss=100", "--seed", "3", "--rebind", "60"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(WAIT):
            said = (await process.stdout.readline()).decode()
            assert said.startswith("relaying UDP port ")
            async with Peer.there(remote=("127.0.0.1", int(said.split()[3]))) as client:
                client.send(5)
                await server.until(lambda: server.heard)
            process.terminate()
            rest, _ = await process.communicate()
    assert process.returncode == 0
    figures = json.loads(rest)
    assert figures["there"] == {"sent": 1, "sent_bytes": 1, "delivered": 1, "lost": {}}
    assert figures["rebound"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["0"],
        ["0", "--to", "nowhere"],
        ["0", "--to", "127.0.0.1:1", "loss=200"],
        ["0", "--to", "127.0.0.1:1", "--rebind", "x"],
        ["203.0.113.1:9", "--to", "127.0.0.1:1"],
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    main(["0", "--to", "127.0.0.1:1", "--for", "0.01"])
    assert json.loads(capsys.readouterr().out.splitlines()[1])["there"]["sent"] == 0


async def test_holes_count_from_the_relays_start() -> None:
    hole = Hole(begin=0, length=60)
    async with Relay.running(("127.0.0.1", 1), there=Profile(holes=(hole,))) as relay:
        now = asyncio.get_running_loop().time()
        assert relay.there.send(now, 1).cause is Cause.HOLE
        assert relay.there.send(now + 60, 1).arrivals
