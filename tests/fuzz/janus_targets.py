"""What a Janus server sends, fuzzed. See targets.py for what a target is. Inputs are messages, one a line."""

from __future__ import annotations

import json
from typing import Final

from edge.janus import plan as planning
from edge.janus.messages import JanusMessageError, News, decode
from edge.janus.plan import Done, Seen, note, plan

__all__ = ["janus_messages", "janus_seeds"]

_OURS: Final = {1}
_PLUGIN: Final = "janus.plugin.videoroom"


def janus_messages(data: bytes) -> None:
    """Any bytes are read or refused with JanusMessageError; what follows of news comes to an end.

    Nobody of our own is taken for somebody else, and who publishes has joined.
    """
    seen, done = Seen(), Done()
    for line in data.split(b"\n"):
        try:
            message = decode(line)
        except JanusMessageError:
            continue
        if isinstance(message, News):
            note(seen, message.news, ours=_OURS)
            for _ in range(4 * len(seen.people) + 4 * len(done.joined) + 1):
                if (action := next(plan(seen, done), None)) is None:
                    break
                _do(action, done)
            assert next(plan(seen, done), None) is None
            assert not _OURS & seen.people.keys()
            assert done.joined == seen.people.keys()
            assert done.published.keys() <= done.joined


def _do(action: planning.Action, done: Done) -> None:
    match action:
        case planning.Join(person):
            done.joined.add(person)
        case planning.Leave(person):
            done.joined.remove(person)
        case planning.Publish(person, tracks):
            done.published[person] = tracks
        case planning.Unpublish(person):
            del done.published[person]
        case _:
            raise AssertionError(action)


def janus_seeds() -> list[bytes]:
    """Return what a server really says."""
    streams = [
        {"type": "video", "mindex": 0, "mid": "0", "codec": "vp8", "simulcast": True},
        {"type": "audio", "mindex": 1, "mid": "1", "codec": "opus"},
    ]
    ada = {"id": 2, "display": "Ada", "video_codec": "vp8", "talking": False, "streams": streams}
    room: dict[str, object] = {"videoroom": "event", "room": 7}
    news: list[dict[str, object]] = [
        room | {"joining": {"id": 2, "display": "Ada"}},
        room | {"publishers": [ada]},
        room | {"publishers": [ada | {"streams": streams[:1]}, ada | {"id": 1}]},
        room | {"unpublished": 2},
        room | {"leaving": 2, "reason": "kicked"},
        {"videoroom": "destroyed", "room": 7},
    ]
    answers: list[dict[str, object]] = [
        {"videoroom": "joined", "room": 7, "id": 1, "private_id": 9, "publishers": [ada], "attendees": []},
        {"videoroom": "success", "room": 7, "id": 3, "ip": "127.0.0.1", "port": 10000, "rtcp_port": 10001},
        {"videoroom": "event", "error_code": 427, "error": "Room 7 already exists"},
        {"videoroom": "success", "list": [{"room": 7, "description": "standup"}]},
    ]
    told = [_message({}, one) for one in news]
    return [
        b"\n".join(told),
        b"\n".join([told[1], told[0], told[5], told[1]]),
        *(_message({"transaction": "1"}, one) for one in answers),
        b'{"janus":"success","transaction":"1","data":{"id":6433075984791043}}',
        b'{"janus":"ack","session_id":1,"transaction":"1"}\n{"janus":"timeout","session_id":1}',
        b'{"janus":"error","transaction":"1","error":{"code":403,"reason":"Unauthorized"}}',
        b'{"janus":"detached","session_id":1,"sender":1}\n{"janus":"webrtcup","sender":1}',
        b"[" * 2000,
    ]


def _message(more: dict[str, str], data: dict[str, object]) -> bytes:
    head = {"janus": "event", "session_id": 1, "sender": 5}
    return json.dumps(head | more | {"plugindata": {"plugin": _PLUGIN, "data": data}}).encode()
