"""RoomOptions in OpenVidu's words: the body of `POST sessions` (2.32) beside the id. Pure.

A session has far fewer options than a room: who may publish is said by each connection's role, and how many
may come is seen to by control. Nothing is mixed live, so views have no meaning there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from causeway.api import RoomOptions

__all__ = ["session_options"]

_VIDEO: Final = {"vp8": "VP8", "vp9": "VP9", "h264": "H264"}


def session_options(options: RoomOptions) -> dict[str, Any]:
    """Return the session's options: the first codec that OpenVidu can force, if the template names any."""
    sent: dict[str, Any] = {"mediaMode": "ROUTED", "recordingMode": "MANUAL"}
    codec = next((_VIDEO[codec] for codec in options.video_codecs if codec in _VIDEO), None)
    if codec is not None:
        # Transcoding is for clients that lack the forced codec: it is that, or keeping them out.
        sent |= {"forcedVideoCodec": codec, "allowTranscoding": not options.sfu_only}
    return sent
