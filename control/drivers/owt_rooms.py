"""RoomOptions in OWT's words: the `options` of `POST rooms` (owt-server 5.x). Pure.

What a template leaves to the cluster is not sent: without codecs no `mediaIn` and `mediaOut`. `sip` is never
sent, as it would be one account, with its password, for all conferences of a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from causeway.api import RoomOptions
    from causeway.api.templates import View, ViewVideo

__all__ = ["room_options"]

_AUDIO: Final[dict[str, dict[str, Any]]] = {
    "opus": {"codec": "opus", "sampleRate": 48000, "channelNum": 2},
    "pcmu": {"codec": "pcmu"},
    "pcma": {"codec": "pcma"},
    "g722": {"codec": "g722", "sampleRate": 16000, "channelNum": 1},
    "isac": {"codec": "isac", "sampleRate": 16000},
    "ilbc": {"codec": "ilbc"},
    "aac": {"codec": "aac", "sampleRate": 48000, "channelNum": 2},
}
_VIDEO: Final = ("vp8", "vp9", "h264", "h265", "av1")
_DERIVED: Final[dict[str, list[Any]]] = {
    "resolution": ["x3/4", "x2/3", "x1/2", "x1/3", "x1/4", "hd1080p", "hd720p", "svga", "vga", "qvga", "cif"],
    "framerate": [6, 12, 15, 24, 30, 48, 60],
    "bitrate": ["x0.8", "x0.6", "x0.4", "x0.2"],
    "keyFrameInterval": [100, 30, 5, 2, 1],
}
"""What a cluster that transcodes may offer beside the stream as it is."""


def room_options(options: RoomOptions) -> dict[str, Any]:
    """Return OWT's room options, without `_id`."""
    transcodes = not options.sfu_only
    sent: dict[str, Any] = {
        "participantLimit": options.participant_limit,
        "inputLimit": options.publication_limit,
        "roles": [
            {
                "role": rules.role,
                "publish": {"audio": rules.publish.audio, "video": rules.publish.video},
                "subscribe": {"audio": rules.subscribe.audio, "video": rules.subscribe.video},
            }
            for rules in options.roles
        ],
        "views": [_view(view) for view in options.views],
        "transcoding": {
            "audio": transcodes,
            "video": {"format": transcodes, "parameters": dict.fromkeys(_DERIVED, transcodes)},
        },
        "notifying": {
            "participantActivities": options.notify_participants,
            "streamChange": options.notify_streams,
        },
        "selectActiveAudio": options.select_active_audio,
    }
    if options.audio_codecs or options.video_codecs:
        # OWT takes the lists of both kinds or none: for the kind left to the cluster it gets all we know.
        audio = [_AUDIO[codec] for codec in options.audio_codecs or _AUDIO]
        video = [{"codec": codec} for codec in options.video_codecs or _VIDEO]
        parameters = _DERIVED if transcodes else {name: [] for name in _DERIVED}
        sent["mediaIn"] = {"audio": audio, "video": video}
        sent["mediaOut"] = {"audio": audio, "video": {"format": video, "parameters": parameters}}
    return sent


def _view(view: View) -> dict[str, Any]:
    return {
        "label": view.label,
        "audio": {"format": _AUDIO[view.audio_codec], "vad": view.voice_detection},
        "video": False if view.video is None else _picture(view.video),
    }


def _picture(video: ViewVideo) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "resolution": {"width": video.width, "height": video.height},
        "framerate": video.framerate,
        "keyFrameInterval": video.key_frame_interval,
    }
    if video.bitrate is not None:
        parameters["bitrate"] = video.bitrate
    return {
        "format": {"codec": video.codec},
        "parameters": parameters,
        "maxInput": video.max_inputs,
        "bgColor": {"r": 0, "g": 0, "b": 0},
        "motionFactor": 0.8,
        "keepActiveInputPrimary": video.keep_active_primary,
        "layout": {"fitPolicy": video.fit, "templates": {"base": video.layout, "custom": []}},
    }
