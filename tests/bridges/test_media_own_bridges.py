"""Real media bridges on our own wire: which one is spoken, losses, relays, peers that do as they please."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from bridges.quic import QuicSettings
from bridges.wire.errors import SequenceError
from bridges.wire.frame import Feedback
from bridges.wire.messages import Ready
from bridges.wire.own_media.errors import MediaDatagramError
from tests.bridges.media_side import QUICK, ROOM, Side, Taken, picture, side, sound, two_sides
from tests.bridges.node_stub import WAIT
from tests.bridges.test_media_peer import HELLO, OWT_WIRE, let_in, peer_of, subscribe
from tests.bridges.test_quic_datagrams import Datagrams
from tests.impairment.core import Profile
from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridges.internal.listener import Source
    from bridges.wire.frame import MediaFrame
    from tests.bridges.test_media_peer import Peer

OURS = QuicSettings()
KEY_FRAME = Feedback.request_key_frame()


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def pulled(near: Side, origin: Side, kind: str) -> tuple[Source, Taken]:
    """Return a source at `origin`, and who takes it at `near`."""
    source = origin.source(f"stream-{kind}", kind)
    await near.publish(f"session-{kind}", origin, (f"track-{kind}", kind, f"stream-{kind}"))
    taken = await Taken.of(near, f"track-{kind}")
    await origin.changes.until(lambda: source.subscribers)
    return source, taken


@pytest.mark.parametrize(
    ("here", "there", "wire"),
    [(OURS, OURS, "causeway/1"), (OWT_WIRE, OURS, "owt"), (OURS, OWT_WIRE, "owt")],
    ids=["ours", "dialer is OWT's", "listener is OWT's"],
)
async def test_our_wire_is_spoken_where_both_know_it(
    here: QuicSettings, there: QuicSettings, wire: str
) -> None:
    async with side("east", quic=there) as east, side("west", quic=here) as west:
        await west.cascade(east)
        await east.poll(lambda stats: stats["links"])
        source, taken = await pulled(west, east, "video")
        frames = [picture(number, key=number == 0, size=5000) for number in range(10)]
        for frame in frames:
            source.write(frame)
        await taken.until(lambda: len(taken.frames) == 10)
        assert taken.frames == frames
        for each, peer in ((east, "west"), (west, "east")):
            [link] = (await each.stats())["links"]
            assert link["wire"] == wire
            [figures] = each.bridge.figures().links
            assert (figures.peer, figures.wire) == (peer, wire)
            assert each.bridge.figures().peers[0].wires == [wire]
        taken.close()


async def test_two_of_ours_speak_it_under_other_controllers_too() -> None:
    stock = structs.replace(OURS, congestion="reno")
    async with two_sides(quic=stock) as (east, west):
        source, taken = await pulled(west, east, "video")
        frames = [picture(number, key=number == 0) for number in range(10)]
        for frame in frames:
            source.write(frame)
        await taken.until(lambda: len(taken.frames) == 10)
        taken.close()


LOSSY = Profile(delay=0.01, jitter=0.002, loss=0.05)


@asynccontextmanager
async def lossy_chain(*names: str) -> AsyncIterator[list[Side]]:
    """Run clusters, each joined with the next over a path that loses, that pass on what they receive."""
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(side(name)) for name in names]
        for number, later in enumerate(sides[1:]):
            former = sides[number]
            port = (await former.call("getInfo"))["port"]
            relay = await stack.enter_async_context(
                Relay.running(("127.0.0.1", port), there=LOSSY, back=LOSSY, seed=number + 7)
            )
            await later.cascade(former, port=relay.port)
            await former.poll(linked(min(number + 1, 2)))
        for number, each in enumerate(sides):
            ways = {}
            if number:
                ways[names[number - 1]] = tuple(names[: number - 1])
            if number + 1 < len(names):
                ways[names[number + 1]] = tuple(names[number + 2 :])
            each.bridge.set_relays(ROOM, ways)
        yield sides


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")], ids=["one link", "over a relay"])
async def test_what_the_path_loses_is_sent_again_and_what_arrives_is_in_order_and_decodable(
    names: tuple[str, ...],
) -> None:
    async with lossy_chain(*names) as sides:
        first, last = sides[0], sides[-1]
        video, seen = await pulled(last, first, "video")
        audio, heard = await pulled(last, first, "audio")
        pictures: list[MediaFrame] = []
        sounds: list[MediaFrame] = []
        asked = 0
        async with asyncio.timeout(WAIT):
            while len(seen.frames) < 60 or len(heard.frames) < 60:
                number = len(pictures)
                wishes = first.feedback.count(KEY_FRAME)
                pictures.append(picture(number, key=wishes > asked or not number, size=4000))
                sounds.append(sound(number))
                asked = wishes
                video.write(pictures[-1])
                audio.write(sounds[-1])
                await asyncio.sleep(0.01)  # as a camera and a microphone would
        shown = [pictures.index(frame) for frame in seen.frames]
        assert all(
            number == before + 1 or (number > before and pictures[number].key_frame)
            for before, number in pairwise(shown)
        )
        numbers = [sounds.index(frame) for frame in heard.frames]
        assert numbers == sorted(set(numbers))
        figures = [link for each in sides for link in each.bridge.figures().links]
        assert len(figures) == 2 * (len(sides) - 1)
        assert sum(link.datagrams_lost for link in figures) > 0
        assert sum(link.datagrams_repeated + link.datagrams_recovered for link in figures) > 0
        relayed = {(each.cluster, options["cluster"]) for each in sides for options in each.subscribed}
        assert relayed == {("a", "b")}, "only the origin's node knows of it"
        for taken in (seen, heard):
            taken.close()


def linked(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda stats: sum(link["state"] == "up" for link in stats["links"]) == count


async def joined(*links: tuple[Side, Side]) -> None:
    """Link clusters, and let every one pass on what it receives."""
    ends: dict[str, Side] = {}
    behind: dict[str, set[str]] = {}
    for later, former in links:
        await later.cascade(former)
        for here, there in ((later, former), (former, later)):
            ends[here.cluster] = here
            behind.setdefault(here.cluster, set()).add(there.cluster)
    for name, own in ends.items():
        await own.poll(linked(len(behind[name])))
    for name, own in ends.items():
        ways = {peer: reached(peer, name, behind) for peer in behind[name]}
        own.bridge.set_relays(ROOM, ways)


def reached(peer: str, by: str, behind: dict[str, set[str]]) -> tuple[str, ...]:
    """Return the clusters that a tree has behind `peer`, seen from `by`."""
    further = sorted(behind[peer] - {by})
    return (*further, *(each for one in further for each in reached(one, peer, behind)))


async def test_in_a_tree_a_track_crosses_every_link_once_whoever_wants_it() -> None:
    async with side("a") as a, side("b") as b, side("c", quic=OWT_WIRE) as c, side("d") as d:
        await joined((b, a), (c, b), (d, b))
        source = a.source("stream-1", "video")
        takers = []
        for each in (b, c, d):
            await each.publish(f"session-{each.cluster}", a, ("track", "video", "stream-1"))
            takers.append(await Taken.of(each, "track"))
        await a.changes.until(lambda: source.subscribers)
        await b.poll(lambda stats: len(stats["tracks"]) == 3)
        number = 0
        async with asyncio.timeout(WAIT):
            while not all(taken.frames for taken in takers):
                source.write(picture(number, key=True))
                number += 1
                await asyncio.sleep(0.01)  # as a camera would
        # Everybody gets all of it, unless this machine has stalled and pictures came too late: then the next.
        for first in range(number, number + 100, 20):
            pictures = [picture(first + place, key=place == 0, size=6000) for place in range(20)]
            for frame in pictures:
                source.write(frame)
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT / 5):
                    for taken in takers:
                        await taken.until(lambda taken=taken, whole=pictures: taken.frames[-20:] == whole)  # type: ignore[misc] # bound now
                    break
        else:
            pytest.fail("not everybody got all of it, five times in a row")
        assert source.subscribers == 1
        assert [options["cluster"] for options in a.subscribed] == ["b"]
        assert {link["peer"]: link["wire"] for link in (await b.stats())["links"]} == {
            "a": "causeway/1",
            "c": "owt",
            "d": "causeway/1",
        }
        for taken in takers:
            taken.close()


async def test_a_path_that_does_not_answer_costs_bounded_memory_and_the_source_is_left_alone() -> None:
    own = structs.replace(QUICK.own, max_queue_bytes=1 << 16)
    media = structs.replace(QUICK, own=own, key_frame_interval=5.0)
    quic = structs.replace(OURS, idle_timeout=20.0)
    async with side("east", media=media, quic=quic) as east, side("west", quic=quic) as west:
        port = (await east.call("getInfo"))["port"]
        async with Relay.running(("127.0.0.1", port)) as relay:
            await west.cascade(east, port=relay.port)
            await east.poll(lambda stats: stats["links"])
            source, taken = await pulled(west, east, "video")
            source.write(picture(0, key=True))
            await taken.until(lambda: taken.frames)
        asked = len(east.feedback)
        most = 0
        for number in range(1, 100):
            source.write(picture(number, key=number % 10 == 0, size=20_000))
            [link] = (await east.stats())["links"]
            most = max(most, link["queued_bytes"])
        assert 0 < most <= 1 << 16
        [track] = (await east.stats())["tracks"]
        assert track["dropped_frames"] > 50
        assert len(east.feedback) - asked <= 10
        taken.close()


# Peers that do as they please.


def wants(peer: Peer, alias: int | None, connection_id: str = "quic-1-1") -> int:
    """Open a track's stream."""
    return peer.open(*subscribe(connection_id, alias=alias))


async def test_a_puller_that_names_no_alias_or_one_in_use_is_refused_its_track() -> None:
    async with side("east") as east, peer_of(east, settings=OURS) as peer:
        await let_in(peer, east)
        nameless = wants(peer, None)
        await peer.changes.until(lambda: nameless in peer.resets)
        good = wants(peer, 7)
        await east.poll(lambda stats: stats["tracks"])
        twice = wants(peer, 7, "quic-1-2")
        await peer.changes.until(lambda: twice in peer.resets)
        assert peer.resets == {nameless: SequenceError.code, twice: SequenceError.code}
        assert good not in peer.ended
        assert len((await east.stats())["tracks"]) == 1


async def test_frames_come_as_datagrams_of_the_alias_and_feedback_goes_to_the_source() -> None:
    async with side("east") as east, peer_of(east, settings=OURS) as peer:
        datagrams = Datagrams()
        peer.quic.use_datagrams(datagrams, datagrams.take)
        await let_in(peer, east)
        source = east.source("stream-1", "video")
        stream = wants(peer, 300)
        await east.changes.until(lambda: source.subscribers)
        asked = len(east.feedback)
        peer.say(stream, Feedback.set_bitrate(500), KEY_FRAME)
        await east.changes.until(lambda: len(east.feedback) >= asked + 2)
        assert Feedback.set_bitrate(500) in east.feedback
        source.write(picture(1))
        source.write(picture(2, key=True, size=100))
        await datagrams.until(lambda: datagrams.taken_in)
        assert datagrams.taken_in[0][1:7] == b"\x41\x2c\x00\x00\x00\x00"
        assert datagrams.taken_in[0].endswith(picture(2, key=True, size=100).payload)
        assert peer.frames(stream) == []


async def test_a_peer_that_sends_no_media_datagrams_loses_the_connection() -> None:
    async with side("east") as east, peer_of(east, settings=OURS) as peer:
        await let_in(peer, east)
        rubbish = Datagrams(*[b"\xff rubbish"] * QUICK.own.max_malformed)
        peer.quic.use_datagrams(rubbish, rubbish.take)
        peer.quic.datagrams_waiting()
        await peer.changes.until(lambda: peer.lost)
        assert f"0x{MediaDatagramError.code:x}" in peer.lost[0]
        assert east.bridge.figures().counters["media_datagram"] == 1


async def test_a_peer_that_takes_no_datagrams_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("bridges.quic.dial"), "MAX_DATAGRAM_FRAME", None)
    async with side("east") as east, peer_of(east, settings=OURS) as peer:
        assert peer.open(Ready(), HELLO) == 0
        await peer.changes.until(lambda: peer.lost)
        assert f"0x{MediaDatagramError.code:x}" in peer.lost[0]
        assert not any(link["state"] == "up" for link in (await east.stats())["links"])
