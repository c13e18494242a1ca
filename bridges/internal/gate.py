"""Which frames of one track go out, and which are dropped because the way is not clear.

Pure: whoever owns the transport says how many bytes it has taken and not yet delivered (the backlog), and the
gate answers for each frame whether it may follow. Nothing is ever held back for later: a late frame is
dropped, a picture together with all that need it, up to the next key frame.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridges.wire.frame import MediaFrame

__all__ = ["FrameGate", "Throttle"]

_PREFIX_BYTES: Final = 5
_VIDEO_CLOCK: Final = 90_000
_AUDIO_CLOCK: Final = 48_000
_WRAP: Final = 1 << 32


class Throttle:
    """Lets one thing happen at most once in `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last: float | None = None

    def ready(self, now: float) -> bool:
        """Whether it may happen at `now`, in seconds of any monotonic clock; if so, it is taken as done."""
        if self._last is not None and now - self._last < self._interval:
            return False
        self._last = now
        return True


class FrameGate:
    """Lets the frames of one track pass while its transport keeps up.

    A frame is in time while at most `max_backlog_bytes` wait in the transport and the oldest frame among them
    is at most `max_delay` seconds of media time old; with nothing waiting, every frame is. Sound that is
    not in time is dropped frame by frame. After a dropped picture nothing is decodable until a key frame, so
    everything up to it is dropped; it must find half of both limits free, so that the gate does not fall shut
    again right behind it. What passes is therefore always decodable, from the first picture on.
    """

    def __init__(
        self,
        *,
        max_backlog_bytes: int = 512 << 10,
        max_delay: float = 1.0,
        key_frame_interval: float = 0.25,
    ) -> None:
        self._max_backlog = max_backlog_bytes
        self._max_delay = max_delay
        self._requests = Throttle(key_frame_interval)
        # Of every frame that passed and is not delivered: where it ends in the bytes passed, its timestamp.
        self._marks: deque[tuple[int, int]] = deque()
        self._passed_bytes = 0
        self._intact = False
        self.lacks_key_frame = False
        """Whether the last picture would have passed, had it been a key frame."""
        self.sent = 0
        """Frames that passed."""
        self.dropped = 0
        """Frames that did not."""
        self.waiting_for_key_frame = False
        """Whether pictures are being dropped until the next key frame."""

    def offer(self, frame: MediaFrame, backlog: int) -> bool:
        """Return whether `frame` is to be sent now, `backlog` bytes being on their way before it."""
        passes = self._pass_picture(frame, backlog) if frame.is_video else self._fits(frame, backlog, 1.0)
        if not passes:
            self.dropped += 1
            return False
        self.sent += 1
        self._passed_bytes += len(frame.raw) + _PREFIX_BYTES
        self._marks.append((self._passed_bytes, frame.timestamp))
        return True

    def wants_key_frame(self, now: float) -> bool:
        """Whether to ask the source for a key frame at `now`, seconds of any monotonic clock.

        True at most once in `key_frame_interval`, and only while a key frame would pass: one that is asked
        for while the way is blocked would block it further.
        """
        return self.lacks_key_frame and self._requests.ready(now)

    def _pass_picture(self, frame: MediaFrame, backlog: int) -> bool:
        if self._intact:
            self._intact = self._fits(frame, backlog, 1.0)
            self.lacks_key_frame = False
        else:
            free = self._fits(frame, backlog, 0.5)
            self._intact = free and frame.key_frame
            self.lacks_key_frame = free and not frame.key_frame
        self.waiting_for_key_frame = not self._intact
        return self._intact

    def _fits(self, frame: MediaFrame, backlog: int, share: float) -> bool:
        delivered = self._passed_bytes - backlog
        while self._marks and self._marks[0][0] <= delivered:
            self._marks.popleft()
        if backlog <= 0:
            return True
        return backlog <= self._max_backlog * share and self._delay(frame) <= self._max_delay * share

    def _delay(self, frame: MediaFrame) -> float:
        """Return how much older than `frame` the oldest undelivered frame is, in seconds of media time."""
        if not self._marks:
            return 0.0
        ticks = (frame.timestamp - self._marks[0][1]) % _WRAP
        if ticks >= _WRAP // 2:  # Pictures may come in decoding order, so a timestamp may step back.
            return 0.0
        clock = _VIDEO_CLOCK if frame.is_video else frame.audio.sample_rate or _AUDIO_CLOCK
        return ticks / clock
