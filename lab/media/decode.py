"""VP8 and Opus back to pictures and sound. Blocking: run it in a thread.

It must not know where frames come from. What does not decode is said by None, never by an exception: a frame
from the network can be anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import av
import numpy as np

from lab.media.clock import AUDIO_CLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "AudioDecoder", "VideoDecoder"]

MAX_PIXELS: Final = 3840 * 2160
"""Of the largest picture that is decoded: what a frame says of its size is memory that we spend."""


class VideoDecoder:
    """VP8 to I420 arrays. Until the first key frame, and after a frame that is broken, nothing decodes."""

    def __init__(self) -> None:
        self._codec = _video_codec()
        self.wants_key_frame = True
        """Whether only a key frame can be decoded now; whoever owns the decoder should ask for one."""

    def decode(self, payload: bytes, *, key: bool) -> NDArray[np.uint8] | None:
        """Return the picture, None when `payload` cannot be decoded (now, or at all)."""
        # To libav, an empty packet is the end of the stream.
        if not payload or (self.wants_key_frame and not key):
            return None
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError:
            frames = []
            self._codec = _video_codec()
        self.wants_key_frame = not frames
        return frames[-1].to_ndarray(format="yuv420p").astype(np.uint8, copy=False) if frames else None


def _video_codec() -> av.VideoCodecContext:
    codec = av.VideoCodecContext.create("vp8", "r")
    codec.thread_count = 1  # frame threads would hold pictures back
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return codec


class AudioDecoder:
    """Opus to samples, 48 kHz stereo."""

    def __init__(self) -> None:
        codec = av.AudioCodecContext.create("libopus", "r")
        codec.sample_rate = AUDIO_CLOCK
        codec.layout = "stereo"
        self._codec = codec

    def decode(self, payload: bytes) -> NDArray[np.int16] | None:
        """Return the samples (shape 1 × 2n, interleaved), None when `payload` is no Opus."""
        if not payload:
            return None
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError:
            return None
        arrays = [frame.to_ndarray().astype(np.int16, copy=False) for frame in frames]
        return np.concatenate(arrays, axis=1) if arrays else None
