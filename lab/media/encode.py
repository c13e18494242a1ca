"""Pictures and sound to VP8 and Opus, as the frames that the wire carries. Blocking: run it in a thread.

One picture gives one frame, at once: the encoder looks at no later picture. It must not know when pictures
are due, or where frames go.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av
from av.video.frame import PictureType

from bridges.wire.frame import AudioInfo, FrameFormat, MediaFrame, VideoInfo
from lab.media.clock import AUDIO_CLOCK, VIDEO_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SAMPLES_PER_FRAME", "AudioEncoder", "VideoEncoder"]

_LAYERS: Final = (
    "ts_number_layers=2:ts_target_bitrate={base},{all}:ts_rate_decimator=2,1:ts_periodicity=2:ts_layer_id=0,1"
    ":ts_layering_mode=2"
)
"""Two temporal layers of libvpx's: rates in kbit/s, that of the higher one includes the lower."""
_BASE_SHARE: Final = 0.6
_WORTH: Final = 10
"""A rate that differs by less than one in so many parts is the same."""
SAMPLES_PER_FRAME: Final = 960
"""Samples of each channel in an Opus frame: 20 ms."""


class VideoEncoder:
    """VP8 (libvpx) for conversation: no look-ahead, bounded rate, a key frame at least every 2 s.

    Every second picture is needed by no other, so it can be left out on the way. `bitrate` is in bit/s, and
    may be changed: to less at once, by a key frame, to more with the next one. A frame's timestamp is
    `stamp()` taken when the picture has been encoded, so that a frame's age says what its way costs, not what
    libvpx costs.
    """

    def __init__(
        self, width: int, height: int, *, fps: int, bitrate: int, key_frame_interval: float = 2.0
    ) -> None:
        self._width = width
        self._height = height
        self._count = 0
        self._fps = fps
        self._key_every = max(1, int(fps * key_frame_interval))
        self._since_key = 0
        self.bitrate = bitrate
        """What it is to be, in bit/s."""
        self._codec = self._open()

    def _open(self) -> av.VideoCodecContext:
        bitrate = self._bitrate = self.bitrate
        codec = av.VideoCodecContext.create("libvpx", "w")
        codec.width = self._width
        codec.height = self._height
        codec.pix_fmt = "yuv420p"
        codec.time_base = Fraction(1, VIDEO_CLOCK)
        codec.framerate = Fraction(self._fps)
        codec.bit_rate = bitrate
        codec.gop_size = self._key_every
        codec.thread_count = 1  # a second thread costs more than it gives at these sizes
        codec.options = {
            "deadline": "realtime",
            "cpu-used": "8",
            "lag-in-frames": "0",
            "auto-alt-ref": "0",
            "error-resilient": "default",
            "minrate": str(bitrate),
            "maxrate": str(bitrate),
            "bufsize": str(bitrate),
            "ts-parameters": _LAYERS.format(base=int(_BASE_SHARE * bitrate / 1000), all=bitrate // 1000),
        }
        return codec

    def encode(
        self, picture: NDArray[np.uint8], *, stamp: Callable[[], int], key: bool = False
    ) -> MediaFrame:
        """Return `picture` (I420) encoded; `key` makes it a key frame. Raises av.FFmpegError."""
        # libvpx takes another rate here only when it is opened anew, which begins with a key frame.
        much = self._bitrate / _WORTH
        if self.bitrate < self._bitrate - much or (
            self.bitrate > self._bitrate + much and (key or self._since_key >= self._key_every)
        ):
            self._codec = self._open()
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        # libvpx spends its bits by these; the timestamp that others see is `stamp`'s.
        frame.pts = self._count * VIDEO_CLOCK // self._fps
        self._count += 1
        frame.pict_type = PictureType.I if key else PictureType.NONE
        (packet,) = self._codec.encode(frame)
        self._since_key = 1 if packet.is_keyframe else self._since_key + 1
        info = VideoInfo(width=self._width, height=self._height, key_frame=packet.is_keyframe)
        return MediaFrame.build(FrameFormat.VP8, timestamp=stamp(), info=info, payload=bytes(packet))


class AudioEncoder:
    """Opus (libopus), 48 kHz stereo, 20 ms a frame. `bitrate` is in bit/s."""

    def __init__(self, *, bitrate: int = 64_000) -> None:
        codec = av.AudioCodecContext.create("libopus", "w")
        codec.sample_rate = AUDIO_CLOCK
        codec.layout = "stereo"
        codec.format = "s16"
        codec.bit_rate = bitrate
        codec.time_base = Fraction(1, AUDIO_CLOCK)
        codec.options = {"frame_duration": "20", "application": "lowdelay", "vbr": "constrained"}
        self._codec = codec
        self._count = 0

    def encode(self, samples: NDArray[np.int16], *, timestamp: int) -> MediaFrame:
        """Return `samples` (shape 1 × 1920, interleaved) encoded. Raises av.FFmpegError."""
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = AUDIO_CLOCK
        frame.pts = self._count * SAMPLES_PER_FRAME
        self._count += 1
        (packet,) = self._codec.encode(frame)
        info = AudioInfo(samples=SAMPLES_PER_FRAME, sample_rate=AUDIO_CLOCK, channels=2)
        return MediaFrame.build(FrameFormat.OPUS, timestamp=timestamp, info=info, payload=bytes(packet))
