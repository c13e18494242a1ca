"""Media bridges that pass tracks on: chains of real bridges over QUIC, each with a scripted cluster."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridges.media.ways import MAX_HOPS, Routes
from tests.bridges.media_side import ROOM, Changes, Side, Taken, picture, side, sound
from tests.bridges.node_stub import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridges.internal.listener import Source


def linked(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda stats: len(stats["links"]) == count


@asynccontextmanager
async def chain(*names: str) -> AsyncIterator[list[Side]]:
    """Run clusters, each linked with the next, whose links relay."""
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(side(name)) for name in names]
        for number, later in enumerate(sides[1:]):
            await later.cascade(sides[number])
            await sides[number].poll(linked(min(number + 1, 2)))
        for number, each in enumerate(sides):
            ways = {}
            if number:
                ways[names[number - 1]] = tuple(names[: number - 1])
            if number + 1 < len(names):
                ways[names[number + 1]] = tuple(names[number + 2 :])
            each.bridge.set_relays(ROOM, ways)
        yield sides


async def flow(source: Source, taken: Taken, *, first: int = 0) -> None:
    """Send pictures until one arrives."""
    number, have = first, len(taken.frames)
    async with asyncio.timeout(WAIT):
        while len(taken.frames) == have:
            source.write(picture(number, key=number % 3 == 0))
            number += 1
            await asyncio.sleep(0.01)  # as a camera would


async def test_a_track_is_passed_on_byte_for_byte_and_crosses_each_link_once() -> None:
    async with chain("a", "b", "c") as (a, b, c):
        source = a.source("stream-1", "audio")
        await c.publish("far", a, ("far-track", "audio", "stream-1"))
        far = await Taken.of(c, "far-track")
        await a.changes.until(lambda: source.subscribers)
        await b.publish("near", a, ("near-track", "audio", "stream-1"))
        near = await Taken.of(b, "near-track")
        await b.poll(lambda stats: len(stats["tracks"]) == 2)
        source.write(sound(0))
        await near.until(lambda: near.frames)
        frames = [sound(number) for number in range(1, 30)]
        for frame in frames:
            source.write(frame)
        await far.until(lambda: far.frames[-29:] == frames)
        await near.until(lambda: near.frames[-29:] == frames)
        assert source.subscribers == 1
        assert b.subscribed == [], "the relay's own node has nothing to do with it"
        assert [options["cluster"] for options in a.subscribed] == ["b"]
        await c.call("unpublish", "far")
        await b.poll(lambda stats: [track["direction"] for track in stats["tracks"]] == ["in"])
        source.write(sound(99))
        await near.until(lambda: near.frames[-1] == sound(99))
        await b.call("unpublish", "near")
        await a.changes.until(lambda: source.subscribers == 0)


async def test_pictures_begin_with_a_key_frame_that_is_asked_for_along_the_way() -> None:
    async with chain("a", "b", "c", "d") as (a, _, _, d):
        source = a.source("stream-1", "video")
        await d.publish("far", a, ("track", "video", "stream-1"))
        taken = await Taken.of(d, "track")
        await a.changes.until(lambda: source.subscribers)
        await a.changes.until(lambda: a.feedback)
        await flow(source, taken, first=1)
        assert taken.frames[0].key_frame


async def test_another_way_is_taken_when_there_is_one_and_the_old_one_is_left() -> None:
    async with chain("a", "b", "c") as (a, b, c):
        source = a.source("stream-1", "video")
        await c.publish("far", a, ("track", "video", "stream-1"))
        taken = await Taken.of(c, "track")
        await a.changes.until(lambda: source.subscribers)
        await flow(source, taken)
        await c.cascade(a)
        await a.poll(lambda stats: len(stats["links"]) == 2)
        c.bridge.set_relays(ROOM, {"a": ("b",)})
        a.bridge.set_relays(ROOM, {"b": (), "c": ()})
        b.bridge.set_relays(ROOM, {"a": ("c",)})
        await b.poll(lambda stats: not stats["tracks"])
        await flow(source, taken)
        assert [options["cluster"] for options in a.subscribed] == ["b", "c"]


async def test_a_relay_that_dies_and_another_that_takes_its_place() -> None:
    async with AsyncExitStack() as stack:
        a, x = [await stack.enter_async_context(side(name)) for name in ("a", "x")]
        source = a.source("stream-1", "video")
        c = await stack.enter_async_context(side("c"))
        async with side("b") as b:
            await b.cascade(a)
            await c.cascade(b)
            a.bridge.set_relays(ROOM, {"b": ("c",)})
            b.bridge.set_relays(ROOM, {"a": (), "c": ()})
            c.bridge.set_relays(ROOM, {"b": ("a",)})
            await c.publish("far", a, ("track", "video", "stream-1"))
            taken = await Taken.of(c, "track")
            await a.changes.until(lambda: source.subscribers)
            await flow(source, taken)
        await x.cascade(a)
        await c.cascade(x)
        a.bridge.set_relays(ROOM, {"x": ("c",)})
        x.bridge.set_relays(ROOM, {"a": (), "c": ()})
        c.bridge.set_relays(ROOM, {"x": ("a",)})
        await a.changes.until(lambda: source.subscribers)
        await flow(source, taken)


async def test_what_is_not_said_to_relay_passes_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chain("a", "b", "c") as (a, b, c):
        b.bridge.set_relays(ROOM, {})
        source = a.source("stream-1", "video")
        await c.publish("far", a, ("track", "video", "stream-1"))
        asked = Changes()
        refused: list[str] = []

        def refuse(*args: Any, **options: Any) -> str:
            refused.append(refusal(*args, **options))
            asked.note()
            return refused[-1]

        refusal = b.bridge._routes.refusal
        monkeypatch.setattr(b.bridge._routes, "refusal", refuse)
        await asked.until(lambda: len(refused) > 1)
        assert all(refused)
        assert source.subscribers == 0
        b.bridge.set_relays(ROOM, {"a": (), "c": ()})
        await a.changes.until(lambda: source.subscribers)


@pytest.mark.parametrize(
    ("origin", "asker", "hops", "reason"),
    [
        ("a", "c", ["c"], ""),
        ("far", "c", ["x", "c"], ""),
        ("a", "d", ["d"], "nothing"),
        ("unknown", "c", ["c"], "nothing"),
        ("c", "c", ["c"], "over the peer"),
        ("a", "c", ["b", "c"], "come round"),
        ("a", "c", ["c"] * MAX_HOPS, "too far"),
    ],
)
def test_who_gets_what_from_a_relay(origin: str, asker: str, hops: list[str], reason: str) -> None:
    routes = Routes("b")
    routes.set("room", {"a": ("far",), "c": ()})
    refusal = routes.refusal("room", origin, asker=asker, hops=hops)
    assert reason in refusal
    assert bool(reason) == bool(refusal)
    assert routes.next_hop("room", "far") == "a"
    assert routes.next_hop("room", "unknown") == "unknown"
    routes.set("room", {})
    assert routes.next_hop("room", "far") == "far"
