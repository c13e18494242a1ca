"""Cameras and microphones of benchmarks: frames of given sizes at given rates, stamped when captured."""

from __future__ import annotations

import asyncio
import heapq
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench._frames import frame_of, stamp, stamp_of
from bridges.wire.frame import FeedbackCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench._media.direct import DirectListener
    from bench._virtual.media import Track
    from bridges.internal.listener import InternalListener
    from bridges.wire.frame import Feedback

__all__ = ["Camera", "Sent", "Shooter", "shoot"]


@dataclass(slots=True)
class Sent:
    """What was captured."""

    video: list[int]
    """The stamps of all pictures."""
    sound: list[int]
    media_bytes: int = 0
    """Of encoded media, without any header of ours."""


class Camera:
    """One track on offer: `<stream>-video` or `<stream>-audio`. A key frame that is asked for comes next."""

    def __init__(
        self,
        hub: InternalListener | DirectListener,
        stream: str,
        track: Track,
        *,
        on_joined: Callable[[int], None],
        phase: int = 0,
    ) -> None:
        self._phase = phase
        self._count = 0
        self._wanted = False
        self.track = track
        self.source = hub.add_source(
            f"{stream}-{'audio' if track.sound else 'video'}", on_feedback=self._asked, on_joined=on_joined
        )

    def shoot(self, sent: Sent) -> None:
        """Capture and send the next frame."""
        track = self.track
        key = not track.sound and (self._wanted or self._is_due())
        self._wanted = self._wanted and not key
        self._count += 1
        size = track.key_size if key else track.size
        frame = stamp(frame_of(size, sound=track.sound, key=key))
        (sent.sound if track.sound else sent.video).append(stamp_of(frame))
        sent.media_bytes += size
        self.source.write(frame)

    async def roll(self) -> None:
        """Capture and send until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.shoot(Sent([], []))
            due = max(due + 1 / self.track.rate, loop.time() - 1)
            await asyncio.sleep(due - loop.time())

    def _is_due(self) -> bool:
        return not self._count or (self._count + self._phase) % self.track.key_every == 0

    def _asked(self, feedback: Feedback) -> None:
        self._wanted = self._wanted or feedback.command is FeedbackCommand.REQUEST_KEY_FRAME


class Shooter(Protocol):
    """What sends the frames of a track when it is told."""

    @property
    def track(self) -> Track:
        """What it sends."""

    def shoot(self, sent: Sent) -> None:
        """Send the next frame, and note it."""


async def shoot(cameras: Iterable[Shooter], seconds: float) -> Sent:
    """Let all of them run for so many seconds, their frames evenly spread over time.

    All frames that are due go in one turn of the loop, as those that have come from agents by then would.
    """
    sent = Sent([], [])
    begin = time.monotonic()
    due = [(number * 0.0037, number, camera) for number, camera in enumerate(cameras)]
    heapq.heapify(due)
    while (wait := due[0][0]) < seconds:
        await asyncio.sleep(max(0.0, begin + wait - time.monotonic()))
        until = min(time.monotonic() - begin, seconds)
        for _ in range(len(due)):  # who is late must not keep the others from sending
            at, number, camera = due[0]
            if at >= until:
                break
            camera.shoot(sent)
            heapq.heapreplace(due, (at + 1 / camera.track.rate, number, camera))
    return sent
