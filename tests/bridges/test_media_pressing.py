"""Links that take less than is offered: real bridges, on both wires where both can do it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest

from bridges.quic import QuicSettings
from bridges.wire.frame import Feedback, FeedbackCommand
from tests.bridges.media_side import ROOM, Side, Taken, picture, side, sound
from tests.bridges.node_stub import WAIT
from tests.bridges.test_media_peer import OWT_WIRE
from tests.impairment.core import Bottleneck, Profile
from tests.impairment.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NARROW = Profile(delay=0.01, bottleneck=Bottleneck(rate=1.5e6, queue=0.1))
WIRES = pytest.mark.parametrize("quic", [QuicSettings(), OWT_WIRE], ids=["ours", "owt"])


@asynccontextmanager
async def chain(*names: str, quic: QuicSettings, last: Profile | None = None) -> AsyncIterator[list[Side]]:
    """Run clusters, each linked with the next, whose links relay; the last link may be a bad one."""
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(side(name, quic=quic)) for name in names]
        for number, later in enumerate(sides[1:]):
            former, port = sides[number], None
            if last is not None and number == len(names) - 2:
                port = (await former.call("getInfo"))["port"]
                relay = await stack.enter_async_context(
                    Relay.running(("127.0.0.1", port), there=Profile(delay=0.01), back=last, seed=3)
                )
                port = relay.port
            await later.cascade(former, port=port)
            await former.poll(lambda stats, number=number: len(stats["links"]) == min(number + 1, 2))  # type: ignore[misc] # bound now
        for number, each in enumerate(sides):
            ways = {}
            if number:
                ways[names[number - 1]] = tuple(names[: number - 1])
            if number + 1 < len(names):
                ways[names[number + 1]] = tuple(names[number + 2 :])
            each.bridge.set_relays(ROOM, ways)
        yield sides


def rates(at: Side) -> list[int]:
    """Return what the sources of a cluster were asked to send, in kilobits a second."""
    return [each.kbps for each in at.feedback if each.command is FeedbackCommand.SET_BITRATE]


@WIRES
async def test_of_the_rates_that_listeners_ask_for_the_least_reaches_the_source(quic: QuicSettings) -> None:
    async with chain("a", "b", "c", quic=quic) as (a, b, c):
        source = a.source("stream-1", "video")
        taken = []
        for each in (b, c):
            await each.publish("session", a, ("track", "video", "stream-1"))
            taken.append(await Taken.of(each, "track"))
        await a.changes.until(lambda: source.subscribers)
        await b.poll(lambda stats: len(stats["tracks"]) == 2)
        source.write(picture(0, key=True))
        near, far = taken
        for one in taken:
            await one.until(lambda one=one: one.frames)  # type: ignore[misc] # bound now
        assert near.receiver is not None
        assert far.receiver is not None
        near.receiver.send(Feedback.set_bitrate(600))
        await a.changes.until(lambda: rates(a) == [600])
        far.receiver.send(Feedback.set_bitrate(400))
        await a.changes.until(lambda: rates(a) == [600, 400])
        far.receiver.send(Feedback.set_bitrate(900))
        await a.changes.until(lambda: rates(a) == [600, 400, 600])
        await b.call("unpublish", "session")
        await a.changes.until(lambda: rates(a)[3:] == [900])
        far.close()


@WIRES
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")], ids=["one link", "behind a relay"])
async def test_a_source_is_asked_for_less_than_a_narrow_link_takes_and_what_passes_is_decodable(
    names: tuple[str, ...], quic: QuicSettings
) -> None:
    async with chain(*names, quic=quic, last=NARROW) as sides:
        first, last = sides[0], sides[-1]
        video, audio = first.source("stream-1", "video"), first.source("stream-1", "audio")
        await last.publish("session", first, ("v", "video", "stream-1"), ("a", "audio", "stream-1"))
        seen, heard = await Taken.of(last, "v"), await Taken.of(last, "a")
        await first.changes.until(lambda: video.subscribers and audio.subscribers)
        async with asyncio.timeout(WAIT):
            numbers = count()
            while not rates(first):
                number = next(numbers)
                # Four megabits a second, a key frame whenever one is asked for.
                wanted = number == 0 or Feedback.request_key_frame() in first.feedback
                first.feedback = [each for each in first.feedback if each != Feedback.request_key_frame()]
                video.write(picture(number, key=wanted, size=15_000))
                audio.write(sound(number))
                await asyncio.sleep(0.03)  # as a camera and a microphone would
        assert 150 <= rates(first)[0] <= 1500
        await heard.until(lambda: len(heard.frames) > 10)
        last_key = -1
        for frame in seen.frames:
            number = frame.timestamp // 3000
            assert frame.key_frame or number == last_key + 1, "each needs the one before it"
            last_key = number
        for taken in (seen, heard):
            taken.close()
