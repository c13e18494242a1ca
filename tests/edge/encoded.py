"""Really encoded pictures and sound of every codec, as encoders give them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import av
from av.video.frame import PictureType

from edge.rtp.track import Codec
from lab.media.picture import MovingPicture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 324, 178  # not whole macroblocks, so that cropping counts
KEY_FRAMES = (0, 6)
_ENCODERS: dict[Codec, tuple[str, dict[str, str]]] = {
    Codec.VP8: ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    Codec.VP9: ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    Codec.H264: ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}),
    Codec.AV1: ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=1:rc=2:lookahead=0"}),
}


def drawn() -> NDArray[np.uint8]:
    return MovingPicture(640, 360).draw(7)


@cache
def pictures(codec: Codec, count: int = 10) -> list[tuple[bytes, bool]]:
    """Return pictures as (bytes, key frame), in the order in which they are decoded."""
    name, options = _ENCODERS[codec]
    encoder = cast("av.VideoCodecContext", av.VideoCodecContext.create(name, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 90_000), Fraction(30)
    encoder.bit_rate, encoder.gop_size, encoder.thread_count = 1_500_000, 300, 1
    encoder.options = options
    source = MovingPicture(640, 360)
    encoded: list[Any] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(source.draw(number), format="yuv420p")
        frame = frame.reformat(width=WIDTH, height=HEIGHT)
        frame.pts = number * 3000
        frame.pict_type = PictureType.I if number in KEY_FRAMES else PictureType.NONE
        encoded += encoder.encode(frame)
    encoded += encoder.encode(None)
    return [(bytes(packet), bool(packet.is_keyframe)) for packet in encoded]


def decoded(codec: Codec, frames: list[bytes]) -> list[tuple[int, int]]:
    """Return the sizes of the pictures that really come out."""
    name = "libdav1d" if codec is Codec.AV1 else codec.value
    decoder = cast("av.VideoCodecContext", av.VideoCodecContext.create(name, "r"))
    decoder.thread_count = 1
    shown = []
    for frame in [*frames, None]:
        for picture in decoder.decode(None if frame is None else av.Packet(frame)):
            shown.append((picture.width, picture.height))  # noqa: PERF401 - two loops read better
    return shown
