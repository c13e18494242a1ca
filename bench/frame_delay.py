"""How long a frame takes through two media bridges, and how many frames a second they carry without a drop.

Three things are measured in one run, each part a process of its own, all on loopback:

1. Delay: a publisher sends a picture track (30/s, about 1 Mbit/s, a key frame every 2 s) and a sound track
   (Opus-sized, 50/s). Every frame is taken twice: straight from the publisher over bare internal TCP, and at
   the far end of publisher -> TCP -> bridge -> QUIC -> bridge -> TCP. What the bridge adds is the difference
   of the two delays of the same frame.
2. The same frames through one stream of bare aioquic (its own asyncio protocol) between two processes.
3. Throughput: the picture rate rises step by step until the first frame is dropped anywhere on the path, and
   beside it, what one stream of bare aioquic moves of frames of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from bench._aioquic import Sink, Spout
from bench._frames import PICTURE_BYTES, PICTURES_PER_SECOND, Delays, media, percentile, pictures, stamp
from bench._machine import report
from bench._media.node import TOKEN, WIRES, bridge
from bench._processes import Remote, process
from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.internal.settings import InternalSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bridges.wire.frame import MediaFrame

ROOM: Final = "room"
STREAM: Final = "stream"
KINDS: Final = ("video", "audio")
BULK_ROUNDS: Final = 3
"""Bare aioquic gets several tries, of which the best counts: whatever else the machine does slows it."""


class Publisher:
    """Serves the tracks `video` and `audio` on internal TCP."""

    def __init__(self, listener: InternalListener) -> None:
        self._listener = listener
        self._joined = asyncio.Event()
        self._sources = {
            kind: listener.add_source(f"{STREAM}-{kind}", on_joined=lambda _: self._joined.set())
            for kind in KINDS
        }

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Publisher]:
        """Serve until the end."""
        listener = await InternalListener.start()
        try:
            yield cls(listener)
        finally:
            await listener.close()

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call: the port, both tracks having so many subscribers, drops, and sending."""
        match method, args:
            case "port", []:
                return self._listener.port
            case "subscribed", [count]:
                while any(source.subscribers < count for source in self._sources.values()):
                    self._joined.clear()
                    await self._joined.wait()
                return None
            case "dropped", []:
                return sum(source.dropped for source in self._sources.values())
            case "media", [seconds]:
                return await self._send(media(seconds))
            case "pictures", [rate, seconds]:
                return await self._send(pictures(rate, seconds))
        raise ValueError(method)

    async def _send(self, schedule: Sequence[tuple[float, MediaFrame]]) -> tuple[int, float]:
        """Send on time; return how many frames, and how many seconds it took."""
        begin = time.monotonic()
        for due, frame in schedule:
            delay = begin + due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            self._sources["video" if frame.is_video else "audio"].write(stamp(frame))
        # Sleeping too short a time to notice would starve the writer at high rates.
        await asyncio.sleep(0)
        return len(schedule), time.monotonic() - begin


class Setup:
    """Publisher, two bridges with a link and both tracks pulled, and the takers of this process."""

    def __init__(self, publisher: Remote, near: Remote, far: Remote) -> None:
        self.publisher = publisher
        self._bridges = (near, far)
        self.direct = Delays()
        self.bridged = Delays()

    @classmethod
    @asynccontextmanager
    async def running(cls, wire: str) -> AsyncIterator[Setup]:
        """Set everything up, and down at the end."""
        async with AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(process(Publisher.running))
            port = await publisher.call("port")
            near = await stack.enter_async_context(process(bridge, "near", port, wire))
            far = await stack.enter_async_context(process(bridge, "far", port, wire))
            own = cls(publisher, near, far)
            await own._link(near, far)
            address = await far.call("getInternalAddress")
            takers = (port, f"{STREAM}-", own.direct), (address["port"], "", own.bridged)
            for target, prefix, delays in takers:
                for kind in KINDS:
                    receiver = await InternalReceiver.connect(
                        "127.0.0.1",
                        target,
                        f"{prefix}{kind}",
                        on_frame=delays.take,
                        on_lost=_fail,
                        settings=InternalSettings(source_wait=10.0),
                    )
                    stack.callback(receiver.close)
            await publisher.call("subscribed", 2, timeout=10.0)
            yield own

    @staticmethod
    async def _link(near: Remote, far: Remote) -> None:
        info = await near.call("getInfo")
        order = {
            "room": ROOM,
            "token": TOKEN,
            "selfCluster": "far",
            "targetCluster": "near",
            "evIP": "127.0.0.1",
            "evPort": 9,
            "mediaIP": info["ip"],
            "mediaPort": info["port"],
            "mediaFingerprint": info["fingerprint"],
        }
        await far.call("startCascading", order)
        tracks = [{"id": kind, "type": kind, "from": STREAM} for kind in KINDS]
        await far.call(
            "publish", "session", "mediabridge", {"cluster": "near", "room": ROOM, "pubArgs": tracks}
        )

    async def dropped(self) -> int:
        """Return the frames that were dropped anywhere so far."""
        total = int(await self.publisher.call("dropped"))
        for remote in self._bridges:
            stats = await remote.call("getStats")
            total += sum(track["dropped_frames"] for track in stats["tracks"])
        return total

    async def settled(self) -> None:
        """Wait until nothing has come for a moment."""
        seen = -1
        while seen != len(self.bridged) + len(self.direct):
            seen = len(self.bridged) + len(self.direct)
            await asyncio.sleep(0.25)


def _fail(reason: str) -> None:
    raise RuntimeError(f"a track was lost: {reason}")


async def measure_delay(setup: Setup, seconds: float) -> dict[str, float]:
    """Return the delays in milliseconds, of frames that both takers got."""
    await setup.publisher.call("media", 0.5)  # both gates need their first key frame, every path its warmth
    await setup.settled()
    setup.direct.clear()
    setup.bridged.clear()
    sent, _ = await setup.publisher.call("media", seconds, timeout=seconds + 30)
    await setup.settled()
    added = [
        1000 * (delay - setup.direct.by_stamp[key])
        for key, delay in setup.bridged.by_stamp.items()
        if key in setup.direct.by_stamp
    ]
    return {
        "added_delay_p50_ms": percentile(added, 50),
        "added_delay_p99_ms": percentile(added, 99),
        "bridged_delay_p50_ms": setup.bridged.percentile_ms(50),
        "bridged_delay_p99_ms": setup.bridged.percentile_ms(99),
        "tcp_delay_p50_ms": setup.direct.percentile_ms(50),
        "tcp_delay_p99_ms": setup.direct.percentile_ms(99),
        "frames_lost": float(sent - len(added)),
    }


async def measure_first_drop(setup: Setup, *, start: float, factor: float, step: float) -> float:
    """Return the picture rate, in frames a second, of the first step in which a frame was dropped."""
    rate = start
    before = await setup.dropped()
    while True:
        setup.direct.clear()
        setup.bridged.clear()
        frames, took = await setup.publisher.call("pictures", rate, step)
        await setup.settled()
        dropped = await setup.dropped() - before
        reached = float(frames / took)
        say(f"  {rate:7.0f} frames/s wanted, {reached:7.0f} sent, {dropped} dropped")
        if dropped or reached < rate / factor:
            return reached
        rate *= factor


async def measure_aioquic(seconds: float, bulk_seconds: float) -> dict[str, float]:
    """Return what one stream of bare aioquic does with the same frames."""
    async with process(Sink.running) as sink:
        port = await sink.call("port")
        async with process(Spout.running, port) as spout:
            await spout.call("media", 0.5)
            await sink.call("delays")
            await spout.call("media", seconds, timeout=seconds + 30)
            await asyncio.sleep(0.2)
            p50, p99 = await sink.call("delays")
            rates = []
            for _ in range(BULK_ROUNDS):
                await sink.call("count")
                await spout.call("bulk", bulk_seconds / BULK_ROUNDS, timeout=bulk_seconds + 30)
                rates.append(await sink.call("rate"))
    return {
        "aioquic_delay_p50_ms": p50,
        "aioquic_delay_p99_ms": p99,
        "aioquic_frames_per_s": max(rates),
    }


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)


async def run(*, wire: str, seconds: float, quick: bool) -> dict[str, float]:
    """Return all figures."""
    figures: dict[str, float] = {}
    async with Setup.running(wire) as setup:
        say(f"delay: {PICTURES_PER_SECOND} pictures and 50 sounds a second for {seconds:g} s")
        figures |= await measure_delay(setup, seconds)
        say(f"first drop: pictures of {PICTURE_BYTES} bytes, faster and faster")
        figures["first_drop_frames_per_s"] = await measure_first_drop(
            setup, start=400 if quick else 200, factor=2.0 if quick else 1.3, step=0.4 if quick else 1.5
        )
    say("bare aioquic: the same frames over one stream, then as fast as it goes")
    figures |= await measure_aioquic(seconds / 2, 0.8 if quick else 4.0)
    figures["first_drop_to_aioquic"] = figures["first_drop_frames_per_s"] / figures["aioquic_frames_per_s"]
    figures["added_p50_to_aioquic"] = figures["added_delay_p50_ms"] / figures["aioquic_delay_p50_ms"]
    figures["added_p99_to_aioquic"] = figures["added_delay_p99_ms"] / figures["aioquic_delay_p99_ms"]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="of the delay measurement (default 12)")
    parser.add_argument("--quick", action="store_true", help="all in 10 s: shows that it works, no more")
    parser.add_argument("--wire", choices=list(WIRES), default="causeway", help="default: our own")
    options = parser.parse_args()
    if options.seconds < 1:
        parser.error("--seconds: at least 1")
    figures = asyncio.run(
        run(wire=options.wire, seconds=1.5 if options.quick else options.seconds, quick=options.quick)
    )
    say("")
    for name, value in figures.items():
        say(f"{name:28} {value:12.3f}")
    report("frame_delay", figures)


if __name__ == "__main__":
    main()
