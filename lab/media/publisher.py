"""Encodes a source's pictures and sound in time, and hands the frames on: an asyncio shell.

Drawing and encoding run in one thread of their own. Pictures are paced by deadlines on the monotonic clock: a
late one is made at once, one that is a whole interval late is left out. Nothing is encoded while nobody wants
the track. It must not know who takes the frames.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from lab.media.clock import AUDIO_CLOCK, VIDEO_CLOCK, timestamp
from lab.media.encode import SAMPLES_PER_FRAME, AudioEncoder, VideoEncoder
from lab.media.picture import MAX_NUMBER
from lab.reports import MAX_PER_LINE, Published

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.wire.frame import MediaFrame
    from lab.media.source import Source

__all__ = ["Pace", "Publisher"]

_ASKED_FOR: Final = 5.0
"""Seconds for which a rate that was asked for holds."""
_LEAST_BITRATE: Final = 50_000
_SOUND_STEP: Final = SAMPLES_PER_FRAME / AUDIO_CLOCK
_SOUND_SLACK: Final = 0.2  # seconds that sound may be late before what is missing is left out


class Pace:
    """Deadlines `interval` seconds apart; pure."""

    def __init__(self, interval: float, now: float, *, slack: float) -> None:
        self._interval = interval
        self._slack = slack
        self.due = now

    def advance(self, now: float) -> int:
        """Move to the next deadline; returns how many were skipped because they had long passed."""
        self.due += self._interval
        late = now - self.due
        skipped = int(late / self._interval) if late > self._slack else 0
        self.due += skipped * self._interval
        return skipped


class Publisher:
    """Owns `source`, the encoders and their thread; `run` encodes until it is cancelled.

    `on_video` and `on_audio` are called on the loop's thread with every frame. Numbers of pictures count from
    0 and go on over pauses.
    """

    def __init__(
        self,
        source: Source,
        *,
        width: int,
        height: int,
        fps: int,
        video_bitrate: int,
        on_video: Callable[[MediaFrame], None],
        on_audio: Callable[[MediaFrame], None],
    ) -> None:
        self._source = source
        self._fps = fps
        self._video_bitrate = video_bitrate
        self._asked_bitrate = video_bitrate
        self._asked_until = 0.0
        self._video = VideoEncoder(width, height, fps=fps, bitrate=video_bitrate)
        self._audio = AudioEncoder()
        self._on_video = on_video
        self._on_audio = on_audio
        self._video_subscribers = 0
        self._video_wanted = asyncio.Event()
        self._audio_wanted = asyncio.Event()
        self._key_frame_wanted = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._number = 0
        self._sound_index = 0
        self._frames = self._bytes = self._key_frames = self._requests = self._late = self._sounds = 0
        self._numbers: deque[tuple[int, int]] = deque(maxlen=MAX_PER_LINE)

    def set_video_subscribers(self, count: int) -> None:
        """Encode pictures while `count` is not 0; a growing count makes the next one a key frame."""
        if count > self._video_subscribers:
            self._key_frame_wanted = True
        self._video_subscribers = count
        _set(self._video_wanted, count)

    def set_audio_subscribers(self, count: int) -> None:
        """Encode sound while `count` is not 0."""
        _set(self._audio_wanted, count)

    def ask_bitrate(self, bitrate: int) -> None:
        """Encode pictures at no more than `bitrate`, in bit/s; forgotten after a while unless asked again."""
        self._asked_bitrate = bitrate
        self._asked_until = time.monotonic() + _ASKED_FOR

    def request_key_frame(self) -> None:
        """Make the next picture a key frame."""
        self._requests += 1
        self._key_frame_wanted = True

    def take_report(self, *, dropped: int) -> Published:
        """Return what was encoded; numbers are those since the last call. `dropped` is passed on."""
        numbers = list(self._numbers)
        self._numbers.clear()
        return Published(
            frames=self._frames,
            bytes=self._bytes,
            key_frames=self._key_frames,
            key_frame_requests=self._requests,
            late=self._late,
            audio_frames=self._sounds,
            dropped=dropped,
            bitrate=self._video.bitrate,
            numbers=numbers,
        )

    async def run(self) -> None:
        """Encode what is wanted, for ever. Raises what the source or an encoder raises."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._run_video())
                tasks.create_task(self._run_audio())
        finally:
            # A picture in the making takes milliseconds, and the source belongs to the thread.
            self._thread.submit(self._source.close)
            self._thread.shutdown(wait=True)

    async def _run_video(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._video_wanted.wait()
            pace = Pace(1 / self._fps, time.monotonic(), slack=1 / self._fps)
            while self._video_wanted.is_set():
                key, self._key_frame_wanted = self._key_frame_wanted, False
                held_down = time.monotonic() < self._asked_until
                asked = self._asked_bitrate if held_down else self._video_bitrate
                self._video.bitrate = max(min(asked, self._video_bitrate), _LEAST_BITRATE)
                frame = await loop.run_in_executor(self._thread, self._make_picture, self._number, key)
                self._count(frame)
                self._on_video(frame)
                self._late += pace.advance(time.monotonic())
                await asyncio.sleep(max(0.0, pace.due - time.monotonic()))

    async def _run_audio(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._audio_wanted.wait()
            pace = Pace(_SOUND_STEP, time.monotonic(), slack=_SOUND_SLACK)
            while self._audio_wanted.is_set():
                stamp = timestamp(pace.due, AUDIO_CLOCK)
                frame = await loop.run_in_executor(self._thread, self._make_sound, self._sound_index, stamp)
                self._sound_index += 1
                self._sounds += 1
                self._on_audio(frame)
                pace.advance(time.monotonic())
                await asyncio.sleep(max(0.0, pace.due - time.monotonic()))

    def _make_picture(self, number: int, key: bool) -> MediaFrame:  # noqa: FBT001 - run_in_executor: no keywords
        picture = self._source.picture(number)
        return self._video.encode(picture, key=key, stamp=lambda: timestamp(time.monotonic(), VIDEO_CLOCK))

    def _make_sound(self, index: int, stamp: int) -> MediaFrame:
        return self._audio.encode(self._source.sound(index), timestamp=stamp)

    def _count(self, frame: MediaFrame) -> None:
        self._numbers.append((self._number, frame.timestamp))
        self._number = (self._number + 1) & MAX_NUMBER
        self._frames += 1
        self._bytes += len(frame.payload)
        self._key_frames += frame.key_frame


def _set(event: asyncio.Event, count: int) -> None:
    if count:
        event.set()
    else:
        event.clear()
