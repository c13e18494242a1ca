"""What a participant receives: pictures and sound decoded, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from bridges.wire.frame import FrameFormat, MediaFrame, VideoInfo
from lab.media.clock import VIDEO_CLOCK, timestamp
from lab.media.encode import AudioEncoder, VideoEncoder
from lab.media.picture import MovingPicture
from lab.media.receiver import StreamReceiver
from lab.media.source import GeneratedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import ThreadPoolExecutor

    from lab import reports


WIDTH, HEIGHT = 320, 180


def encoded(*numbers: int, keys: tuple[int, ...] = (0,)) -> list[MediaFrame]:
    encoder, source = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), MovingPicture(WIDTH, HEIGHT)
    stamp = timestamp(time.monotonic(), VIDEO_CLOCK)
    frames = []
    for number in numbers:
        stamped = stamp + number

        def stamp_it(stamped: int = stamped) -> int:
            return stamped

        frames.append(encoder.encode(source.draw(number), key=number in keys, stamp=stamp_it))
    return frames


@asynccontextmanager
async def receiving(
    thread: ThreadPoolExecutor, *, max_waiting: int = 50, key_frame_interval: float = 0.25
) -> AsyncIterator[tuple[StreamReceiver, Counter[str]]]:
    asked: Counter[str] = Counter()
    receiver = StreamReceiver(
        "far", thread=thread, max_waiting=max_waiting, key_frame_interval=key_frame_interval
    )
    receiver.on_key_frame_wanted = lambda: asked.update(["key"])
    receiver.begin()
    running = asyncio.create_task(receiver.run())
    try:
        yield receiver, asked
    finally:
        running.cancel()
        await asyncio.wait([running])


async def drained(receiver: StreamReceiver) -> reports.Received:
    async with asyncio.timeout(10):
        await receiver.idle()
    return receiver.take_report()


async def test_numbers_delays_and_sound_are_counted(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, asked):
        frames = encoded(*range(10))
        for frame in frames:
            receiver.take(frame)
        receiver.take(AudioEncoder().encode(GeneratedSource(WIDTH, HEIGHT).sound(0), timestamp=0))
        report = await drained(receiver)
        assert report.numbers == [(n, frame.timestamp) for n, frame in enumerate(frames)]
        assert (report.frames, report.decoded, report.unreadable, report.skipped) == (10, 10, 0, 0)
        assert (report.audio_frames, report.audio_decoded) == (1, 1)
        assert len(report.delays_ms) == 10
        assert all(-1 <= delay < 10_000 for delay in report.delays_ms)
        assert (report.active, report.subscribed, report.subscriptions) == (True, True, 1)
        again = receiver.take_report()
        assert (again.numbers, again.delays_ms, again.decoded) == ([], [], 10)
        assert not asked


async def test_frames_before_the_first_key_frame_are_skipped_and_one_is_asked_for(
    thread: ThreadPoolExecutor,
) -> None:
    async with receiving(thread) as (receiver, asked):
        frames = encoded(*range(10), keys=(0, 6))
        for frame in frames[1:]:
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [6, 7, 8, 9]
        assert (report.frames, report.skipped) == (9, 5)
        assert asked["key"] == 1  # at most once in a quarter of a second


async def test_a_new_subscription_begins_with_a_key_frame(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, _asked):
        frames = encoded(*range(6), keys=(0, 4))
        receiver.take(frames[0])
        receiver.end()
        receiver.begin()
        for frame in frames[1:]:
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [0, 4, 5]
        assert report.subscriptions == 2


async def test_a_slow_decoder_skips_to_the_next_key_frame(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread, max_waiting=3) as (receiver, asked):
        frames = encoded(*range(8), keys=(0, 6))
        for frame in frames:  # without letting the decoder run
            receiver.take(frame)
        assert (await drained(receiver)).skipped == 5
        assert asked["key"] == 1
        for frame in encoded(*range(8, 10), keys=(8,)):
            receiver.take(frame)
        report = await drained(receiver)
        assert [number for number, _ in report.numbers] == [8, 9]


async def test_garbage_and_other_formats_do_no_harm(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread, key_frame_interval=0.0) as (receiver, asked):
        info = VideoInfo(width=WIDTH, height=HEIGHT, key_frame=True)
        receiver.take(MediaFrame.build(FrameFormat.VP8, timestamp=0, info=info, payload=b"garbage"))
        receiver.take(MediaFrame.build(FrameFormat.H264, timestamp=0, info=info, payload=b"x"))
        receiver.take(MediaFrame.build(FrameFormat.OPUS, timestamp=0, info=info, payload=b""))
        report = await drained(receiver)
        assert (report.frames, report.decoded, report.unreadable, report.skipped) == (2, 0, 1, 1)
        assert (report.audio_frames, report.audio_decoded) == (1, 0)
        assert asked["key"] == 2


async def test_a_picture_without_number_is_unreadable(thread: ThreadPoolExecutor) -> None:
    async with receiving(thread) as (receiver, _asked):
        grey = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
        receiver.take(VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000).encode(grey, stamp=lambda: 0))
        report = await drained(receiver)
        assert (report.decoded, report.unreadable) == (0, 1)
