"""What a Janus server says, as types: its real words, and anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.janus.messages import (
    Acknowledged,
    AddRemotePublisher,
    Ended,
    JanusMessageError,
    Join,
    Message,
    News,
    Offered,
    Other,
    Refusal,
    Reply,
    decode,
    encode,
)

PLUGIN = "janus.plugin.videoroom"


def said(data: object, *, transaction: str | None = "7", janus: str = "success") -> str:
    message: dict[str, object] = {"janus": janus, "session_id": 1, "sender": 5}
    if transaction is not None:
        message["transaction"] = transaction
    return json.dumps(message | {"plugindata": {"plugin": PLUGIN, "data": data}})


def test_answers_and_refusals() -> None:
    assert decode('{"janus":"success","transaction":"1","data":{"id":7}}') == Reply("1", 7)
    assert decode('{"janus":"ack","session_id":1,"transaction":"1"}') == Acknowledged("1")
    refused = '{"janus":"error","transaction":"1","error":{"code":403,"reason":"Unauthorized"}}'
    assert decode(refused) == Refusal("1", 403, "Unauthorized")
    event = {"videoroom": "event", "error_code": 427, "error": "Room 1 already exists"}
    assert decode(said(event)) == Refusal("7", 427, "Room 1 already exists")
    added = decode(said({"videoroom": "success", "room": 1, "id": 9, "port": 10002, "rtcp_port": 10003}))
    assert isinstance(added, Reply)
    assert (added.view.id, added.view.port, added.view.rtcp_port, added.view.ip) == (9, 10002, 10003, None)


def test_who_is_there() -> None:
    streams = [
        {"type": "video", "mindex": 0, "mid": "0", "codec": "vp8", "simulcast": True},
        {"type": "data", "mindex": 1, "mid": "1"},
        {"type": "audio", "mindex": 2, "mid": "2", "disabled": True},
    ]
    publisher = {"id": 77, "display": "Ada", "video_codec": "vp8", "streams": streams}
    joined = decode(
        said(
            {"videoroom": "joined", "room": 1, "publishers": [publisher], "attendees": [{"id": "x"}]},
            janus="event",
        )
    )
    assert isinstance(joined, Reply)
    (ada,) = joined.view.publishers
    assert (ada.id, ada.display, ada.streams[0].simulcast, ada.streams[2].disabled) == (77, "Ada", True, True)
    assert joined.view.attendees[0].id == "x"
    listed = decode(said({"videoroom": "success", "list": [{"room": 5, "description": "standup"}]}))
    assert isinstance(listed, Reply)
    assert [(one.room, one.description) for one in listed.view.rooms] == [(5, "standup")]


def test_news() -> None:
    def news(data: object) -> object:
        told = decode(said(data, transaction=None, janus="event"))
        assert isinstance(told, News)
        assert told.sender == 5
        return told.news

    joining = news({"videoroom": "event", "room": 1, "joining": {"id": 3, "display": "Eve"}})
    assert joining.joining.id == 3  # type: ignore[attr-defined]
    assert news({"videoroom": "event", "room": 1, "leaving": 3}).leaving == 3  # type: ignore[attr-defined]
    assert news({"videoroom": "event", "room": 1, "unpublished": 3}).unpublished == 3  # type: ignore[attr-defined]
    assert news({"videoroom": "destroyed", "room": 1}).destroyed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('{"janus":"timeout","session_id":1}', Ended(None)),
        ('{"janus":"detached","session_id":1,"sender":4}', Ended(4)),
        ('{"janus":"webrtcup","session_id":1,"sender":4}', Other()),
        ('{"janus":"of a later version"}', Other()),
        ('{"janus":"event","sender":1,"plugindata":{"plugin":"janus.plugin.echotest","data":[]}}', Other()),
    ],
)
def test_what_else_it_says(text: str, meaning: object) -> None:
    assert decode(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"janus":1}',
        "[" * 10_000,
        b"\xff",
        said({"publishers": [{"display": "without an id"}]}),
        said({"port": 70_000}),
        said([]),
    ],
)
def test_what_is_no_message(text: str | bytes) -> None:
    with pytest.raises(JanusMessageError) as told:
        decode(text)
    assert "\n" not in str(told.value)


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(json.dumps)
)
def test_anything_is_read_or_refused(data: str | bytes) -> None:
    try:
        decode(data)
    except JanusMessageError:
        return


def test_requests_and_what_is_not_shown_of_them() -> None:
    join = Join(room=1, ptype="publisher", id=2, display="causeway", pin="p", token="geheim")
    message = Message(
        janus="message", transaction="1", session_id=2, handle_id=3, body=join, apisecret="geheim"
    )
    assert "geheim" not in repr(message)
    body = {
        "request": "join",
        "room": 1,
        "ptype": "publisher",
        "id": 2,
        "display": "causeway",
        "pin": "p",
        "token": "geheim",
    }
    assert json.loads(encode(message)) == {
        "janus": "message",
        "transaction": "1",
        "session_id": 2,
        "handle_id": 3,
        "body": body,
        "apisecret": "geheim",
    }
    streams = [Offered(type="video", mindex=0, mid="0", codec="vp8")]
    add = AddRemotePublisher(room="r", secret="s", id="f", display="Ada", streams=streams)
    assert json.loads(encode(Message(janus="message", transaction="1", body=add)))["body"] == {
        "request": "add_remote_publisher",
        "room": "r",
        "secret": "s",
        "id": "f",
        "display": "Ada",
        "streams": [{"type": "video", "mindex": 0, "mid": "0", "codec": "vp8"}],
    }
