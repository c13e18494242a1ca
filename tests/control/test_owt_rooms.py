"""Room options in OWT's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from causeway.api import RoomOptions
from causeway.api.templates import View, ViewVideo
from control.drivers.owt_rooms import room_options
from control.templates import SEED_FILE, read_templates
from lab.room_options import RoomOptions as LabOptions


def test_a_room_without_wishes() -> None:
    sent = room_options(RoomOptions())
    assert (sent["participantLimit"], sent["inputLimit"], sent["views"]) == (-1, -1, [])
    assert [rules["role"] for rules in sent["roles"]] == [
        "presenter",
        "viewer",
        "audio_only_presenter",
        "video_only_viewer",
        "sip",
    ]
    assert sent["notifying"] == {"participantActivities": True, "streamChange": True}
    assert sent["selectActiveAudio"] is False
    assert sent["transcoding"]["audio"] is True
    assert not {"mediaIn", "mediaOut", "sip", "_id"} & set(sent)


def test_forwarding_only() -> None:
    sent = room_options(RoomOptions(sfu_only=True, video_codecs=("h264",)))
    parameters = dict.fromkeys(("resolution", "framerate", "bitrate", "keyFrameInterval"), False)
    assert sent["transcoding"] == {"audio": False, "video": {"format": False, "parameters": parameters}}
    assert sent["mediaOut"]["video"]["format"] == [{"codec": "h264"}]
    assert not any(sent["mediaOut"]["video"]["parameters"].values())


def test_codecs_in_their_order() -> None:
    sent = room_options(RoomOptions(audio_codecs=("pcmu", "opus")))
    assert [each["codec"] for each in sent["mediaIn"]["audio"]] == ["pcmu", "opus"]
    assert sent["mediaIn"]["audio"][1] == {"codec": "opus", "sampleRate": 48000, "channelNum": 2}
    assert "av1" in [each["codec"] for each in sent["mediaIn"]["video"]]
    assert sent["mediaOut"]["audio"] == sent["mediaIn"]["audio"]


def test_views() -> None:
    options = RoomOptions(
        views=(
            View(label="all", video=ViewVideo(codec="h264", width=640, height=360, bitrate=900, fit="crop")),
            View(label="ears", voice_detection=False, video=None),
        )
    )
    seen, heard = room_options(options)["views"]
    assert seen["label"] == "all"
    assert seen["audio"] == {"format": {"codec": "opus", "sampleRate": 48000, "channelNum": 2}, "vad": True}
    assert seen["video"]["format"] == {"codec": "h264"}
    assert seen["video"]["parameters"] == {
        "resolution": {"width": 640, "height": 360},
        "framerate": 24,
        "keyFrameInterval": 100,
        "bitrate": 900,
    }
    assert seen["video"]["layout"] == {"fitPolicy": "crop", "templates": {"base": "fluid", "custom": []}}
    assert (heard["audio"]["vad"], heard["video"]) == (False, False)


@pytest.mark.parametrize("name", sorted(read_templates(SEED_FILE)))
def test_our_own_cluster_takes_and_shows_every_template_that_comes_along(name: str) -> None:
    template = read_templates(SEED_FILE)[name]
    sent: dict[str, Any] = room_options(template)
    taken = msgspec.json.decode(msgspec.json.encode(sent), type=LabOptions)
    assert taken.participant_limit == template.participant_limit
    assert taken.input_limit == template.publication_limit
    assert [rules.role for rules in taken.roles or ()] == [rules.role for rules in template.roles]
    shown = msgspec.to_builtins(taken)
    assert {key: value for key, value in sent.items() if key in shown} == {
        key: value for key, value in shown.items() if key in sent
    }
