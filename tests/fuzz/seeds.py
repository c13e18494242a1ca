"""Where fuzzing begins: what peers really say, and the edges of what they may.

Inputs that a fuzzer found to be of interest lie beside them in the corpus, and are not made here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridges.wire import framing, rpc
from bridges.wire.frame import AudioInfo, Feedback, FrameFormat, MediaFrame, VideoInfo
from bridges.wire.framing import Metadata
from tests.fuzz.janus_targets import janus_seeds
from tests.fuzz.media_seeds import media_seeds
from tests.fuzz.own_seeds import own_seeds
from tests.fuzz.rtp_seeds import rtp_seeds
from tests.fuzz.targets import RIGHT_TOKEN, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CORPUS", "corpus_of", "keep", "name_of", "seeds", "tidy"]

CORPUS: Final = Path(__file__).parent / "corpus"

_PARTICIPANT: Final = {
    "id": "p1",
    "user": "alice",
    "role": "presenter",
    "portal": "portal-1",
    "origin": {"isp": "isp", "region": "region"},
    "permission": {"publish": {"video": True, "audio": True}},
}
_STREAM: Final = {
    "id": "s1",
    "type": "forward",
    "media": {
        "tracks": [
            {"id": "a", "type": "audio", "source": "mic", "format": {"codec": "opus", "sampleRate": 48000}},
            {"id": "v", "type": "video", "source": "camera", "format": {"codec": "vp8"}, "status": "active"},
        ]
    },
    "info": {"owner": "p1", "type": "webrtc", "inViews": [], "attributes": None},
    "cluster": "c-1",
}
_GREETING: Final[list[dict[str, Any]]] = [
    {"type": "ready", "target": "c-1"},
    {"type": "bridge", "room": "r", "token": RIGHT_TOKEN},
]
_EVENTS: Final[list[dict[str, Any]]] = [
    {"type": "initialize", "data": {"participants": {"p1": _PARTICIPANT}, "streams": {"s1": _STREAM}}},
    {"type": "addParticipant", "data": _PARTICIPANT},
    {"type": "removeParticipant", "data": "p1"},
    {"type": "addStream", "data": _STREAM},
    {"type": "updateStreamInfo", "data": {"id": "s1", "info": {"attributes": {"ü": [1, 2.5, None]}}}},
    {"type": "removeStream", "data": "s1"},
    {"type": "setStreamMute", "data": {"id": "s1", "track": "audio", "muted": True}},
    {"type": "onAudioActiveness", "data": {"activeInputStream": None, "target": {"owner": "p1"}}},
    {"type": "onCascadingDisconnected", "data": None},
]
_SIGNALS: Final[list[dict[str, Any]]] = [
    {"type": "ready"},
    {"type": "cluster", "room": "r", "token": RIGHT_TOKEN, "cluster": "c-1"},
    {"type": "track", "id": "t", "kind": "video"},
    {
        "type": "subscribe",
        "options": {
            "room": "r",
            "cluster": "c-1",
            "connectionId": "quic-1-1",
            "media": {"tracks": [{"id": "t", "type": "video", "from": "s1"}]},
        },
    },
]


_FAULT_AND_MORE: Final = b"\x13{\n" + b"x" * 6000
"""A fault, with more behind it than a session keeps: once it was kept after all."""


def _line(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _framed(*messages: dict[str, Any], chunk: int = 0) -> bytes:
    return bytes([chunk << 1 | 1]) + b"\n".join(map(_line, messages))


def _raw(*parts: bytes, chunk: int = 0) -> bytes:
    return bytes([chunk << 1]) + b"".join(parts)


def _binary() -> list[bytes]:
    picture = VideoInfo(width=640, height=480, key_frame=True)
    sound = AudioInfo(samples=960, sample_rate=48_000, channels=2)
    return [
        framing.encode(MediaFrame.build(FrameFormat.VP8, timestamp=90_000, info=picture, payload=b"picture")),
        framing.encode(MediaFrame.build(FrameFormat.OPUS, timestamp=960, info=sound, payload=b"sound")),
        framing.encode(Feedback.request_key_frame()),
        framing.encode(Feedback.init_stream("stream-ü")),
        framing.encode(Metadata(b'{"type":"ready"}')),
        b"\0\0\0\0\x3a",
        b"\xff\xff\xff\xff\x8f",
        b"\0\0\0\x02\x77x",
    ]


def seeds() -> dict[str, list[bytes]]:
    """Return the beginnings of every target."""
    binary = _binary()
    greeting, events, signals = _GREETING, _EVENTS, _SIGNALS
    wrong = {**greeting[1], "token": "guessed"}
    calls: list[rpc.Request | rpc.Reply] = [
        rpc.Request(
            to="node", method="notify", args=["node", {"type": "initialize"}, {}], corr_id=1, reply_to="q"
        ),
        rpc.Request(to="node", method="reportLoad", args=["w", 0.5]),
        rpc.Reply(corr_id=1, data={"id": "c"}),
        rpc.Reply(corr_id=1, data=rpc.FAILED, err="no"),
    ]
    return {
        **own_seeds(),
        "janus_messages": janus_seeds(),
        **media_seeds(),
        **rtp_seeds(),
        "owt_framing": [_raw(*binary, chunk=3), *(_raw(one) for one in binary), _framed(*events, chunk=7)],
        "owt_messages": [*map(_line, greeting + events + signals), b"{", b"[" * 500, b'{"type":7}', b"\xff"],
        "owt_structs": [one[5:] for one in binary],
        "owt_rpc": [*map(rpc.encode, calls), b"{}", b'{"type":"callback"}'],
        "event_listener": [
            _framed(*greeting, *events[:-1], chunk=5),
            _framed(*greeting, *events),
            _framed(greeting[0], wrong, *events),
            _framed(*greeting, *greeting),
            _framed(*events),
            _raw(*binary),
            _FAULT_AND_MORE,
        ],
        "event_dialer": [
            _framed({"type": "ready"}, *events[:-1], chunk=9),
            _framed({"type": "ready"}, {"type": "ready"}),
            _framed(greeting[1]),
            _raw(binary[4], binary[2]),
            _FAULT_AND_MORE,
        ],
        "media_sessions": [
            _framed(*signals[:2], chunk=4),
            _framed(signals[0], {**signals[1], "token": "guessed"}),
            _framed(signals[0], *signals[2:]),
            _raw(binary[4], *binary[:4], chunk=50),
            _raw(framing.encode(Metadata(_line(signals[0]))), binary[0], binary[2]),
        ],
    }


def name_of(data: bytes) -> str:
    """Return the file name of an input."""
    return hashlib.sha256(data).hexdigest()[:16]


def keep(target: str, inputs: Iterable[bytes]) -> int:
    """Write inputs into a target's corpus; return how many were new."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    new = 0
    for data in inputs:
        file = folder / name_of(data)
        if not file.exists():
            file.write_bytes(data)
            new += 1
    return new


def tidy(target: str) -> None:
    """Give what a fuzzer has added to a target's corpus our names."""
    for file in list((CORPUS / target).iterdir()):
        file.rename(file.with_name(name_of(file.read_bytes())))


def corpus_of(target: str) -> list[bytes]:
    """Return a target's corpus, in the order of the names."""
    assert target in TARGETS
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]
