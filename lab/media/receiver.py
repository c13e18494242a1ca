"""Decodes the frames of one stream, reads the numbers out of the pictures, and counts: an asyncio shell.

Frames are handed in as they arrive; decoding runs in a thread that the owner gives. What the decoder cannot
keep up with is skipped up to the next key frame, never queued. It must not know how frames arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from bridges.wire.frame import FrameFormat
from lab.media.clock import VIDEO_CLOCK, age
from lab.media.decode import AudioDecoder, VideoDecoder
from lab.media.picture import read_number
from lab.reports import MAX_PER_LINE, Received

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from bridges.wire.frame import MediaFrame

__all__ = ["StreamReceiver"]


class StreamReceiver:
    """What came of one stream, over all its subscriptions; `run` decodes until it is cancelled.

    `on_key_frame_wanted` is called, at most once in `key_frame_interval` seconds, while nothing can be
    decoded without a key frame. At most `max_waiting` frames wait for the decoder.
    """

    def __init__(
        self,
        from_cluster: str,
        *,
        thread: ThreadPoolExecutor,
        max_waiting: int = 50,
        key_frame_interval: float = 0.25,
    ) -> None:
        self.from_cluster = from_cluster
        self.active = True
        """Whether the stream is there; for the report."""
        self.subscribed = False
        self._thread = thread
        self.on_key_frame_wanted: Callable[[], None] = lambda: None
        """Set by whoever holds the present subscription."""
        self._key_frame_interval = key_frame_interval
        self._asked_at = float("-inf")
        self._video = VideoDecoder()
        self._audio = AudioDecoder()
        self._waiting: asyncio.Queue[MediaFrame] = asyncio.Queue(max_waiting)
        self._in_sequence = False
        self._frames = self._bytes = self._key_frames = self._decoded = self._unreadable = self._skipped = 0
        self._sounds = self._sounds_decoded = self._subscriptions = 0
        self._numbers: deque[tuple[int, int]] = deque(maxlen=MAX_PER_LINE)
        self._delays: deque[float] = deque(maxlen=MAX_PER_LINE)

    def begin(self) -> None:
        """Start a new subscription: its first picture must be a key frame."""
        self.subscribed = True
        self._subscriptions += 1
        self._in_sequence = False

    def end(self) -> None:
        """Take note that the subscription is over."""
        self.subscribed = False

    def take(self, frame: MediaFrame) -> None:
        """Take a frame that has just arrived. Formats other than VP8 and Opus are counted, not decoded."""
        if frame.is_video:
            self._take_picture(frame)
        elif frame.format == FrameFormat.OPUS:
            self._sounds += 1
            if not self._waiting.full():
                self._waiting.put_nowait(frame)

    def take_report(self) -> Received:
        """Return what came; lists are those since the last call."""
        numbers, delays = list(self._numbers), list(self._delays)
        self._numbers.clear()
        self._delays.clear()
        return Received(
            from_cluster=self.from_cluster,
            active=self.active,
            subscribed=self.subscribed,
            frames=self._frames,
            bytes=self._bytes,
            key_frames=self._key_frames,
            decoded=self._decoded,
            unreadable=self._unreadable,
            skipped=self._skipped,
            audio_frames=self._sounds,
            audio_decoded=self._sounds_decoded,
            subscriptions=self._subscriptions,
            numbers=numbers,
            delays_ms=delays,
        )

    async def run(self) -> None:
        """Decode what arrives, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            frame = await self._waiting.get()
            try:
                if frame.is_video:
                    number = await loop.run_in_executor(self._thread, self._read_picture, frame)
                    self._count_picture(number, frame)
                else:
                    samples = await loop.run_in_executor(self._thread, self._audio.decode, frame.payload)
                    self._sounds_decoded += samples is not None
            finally:
                self._waiting.task_done()

    async def idle(self) -> None:
        """Wait until everything that was taken is decoded, while `run` runs."""
        await self._waiting.join()

    def _take_picture(self, frame: MediaFrame) -> None:
        self._frames += 1
        self._bytes += len(frame.payload)
        self._key_frames += frame.key_frame
        self._delays.append(round(age(frame.timestamp, VIDEO_CLOCK, time.monotonic()) * 1000, 3))
        readable = frame.format == FrameFormat.VP8 and (self._in_sequence or frame.key_frame)
        if readable and not self._waiting.full():
            self._in_sequence = True
            self._waiting.put_nowait(frame)
            return
        self._skipped += 1
        self._in_sequence = False
        self._want_key_frame()

    def _read_picture(self, frame: MediaFrame) -> int | None:
        picture = self._video.decode(frame.payload, key=frame.key_frame)
        return None if picture is None else read_number(picture)

    def _count_picture(self, number: int | None, frame: MediaFrame) -> None:
        if number is None:
            self._unreadable += 1
        else:
            self._decoded += 1
            self._numbers.append((number, frame.timestamp))
        if self._video.wants_key_frame:
            self._in_sequence = False
            self._want_key_frame()

    def _want_key_frame(self) -> None:
        now = time.monotonic()
        if now - self._asked_at >= self._key_frame_interval:
            self._asked_at = now
            self.on_key_frame_wanted()
