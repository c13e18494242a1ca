"""Typed metadata: what OWT says is understood, everything else is one documented error without the value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire import messages as m
from bridges.wire.errors import MessageError
from bridges.wire.framing import Metadata
from bridges.wire.objects import MediaOptions, TrackRequest

# As a real conference node was seen to send it (owt-server 5.x), ids shortened.
PARTICIPANT = {
    "id": "p1",
    "user": "alice",
    "role": "presenter",
    "permission": {"publish": {"video": True, "audio": True}, "subscribe": {"video": True, "audio": True}},
    "origin": {"isp": "isp", "region": "region"},
    "portal": "portal-f2a9",
    "somethingNewer": [1, 2],
}
STREAM = {
    "id": "st1",
    "type": "forward",
    "media": {"tracks": [{"id": "t1", "type": "video", "source": "camera", "format": {"codec": "vp8"}}]},
    "info": {"owner": "q1", "type": "webrtc", "inViews": [], "attributes": None},
    "cluster": "c-sh-1",
}
EVENTS: list[dict[str, Any]] = [
    {"type": "initialize", "data": {"participants": {"p1": PARTICIPANT}, "streams": {"st1": STREAM}}},
    {"type": "initialize", "data": {"participants": {}, "streams": {}}},
    {"type": "addParticipant", "data": PARTICIPANT},
    {
        "type": "addParticipant",
        "data": {"id": "p2", "user": "bob", "role": "presenter", "portal": "portal-1"},
    },
    {"type": "removeParticipant", "data": "p2"},
    {"type": "addStream", "data": STREAM},
    {"type": "updateStreamInfo", "data": {"id": "st1", "info": {"event": "StreamInfo"}}},
    {"type": "removeStream", "data": "st1"},
    {"type": "setStreamMute", "data": {"id": "st1", "track": "video", "muted": True}},
    {"type": "onAudioActiveness", "data": {"activeInputStream": "st1", "target": {"view": "common"}}},
]


def as_metadata(value: object) -> Metadata:
    return Metadata(json.dumps(value).encode())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_every_event_passes_unchanged(event: dict[str, Any]) -> None:
    decoded = m.decode_event_message(as_metadata(event))
    assert decoded.type == event["type"]
    assert json.loads(m.encode(decoded).payload) == event


@pytest.mark.parametrize(
    "event",
    [
        {"type": "addParticipant", "data": {"user": "no id"}},
        {"type": "addParticipant", "data": "p1"},
        {"type": "removeParticipant", "data": {"id": "p1"}},
        {"type": "removeParticipant", "data": ""},
        {"type": "addStream", "data": {"id": "s"}},
        {"type": "addStream", "data": {"id": "s", "media": {"tracks": [{"id": "t", "type": "smell"}]}}},
        {"type": "initialize", "data": {"participants": []}},
        {"type": "initialize"},
        {"type": "setStreamMute", "data": {"id": "st1", "track": "video", "muted": "yes"}},
        {"type": "onCascadingDisconnected", "data": None},
        {"type": "whatever", "data": {}},
        {"data": {}},
        [],
        "ready",
        None,
    ],
)
def test_other_events_are_refused(event: object) -> None:
    with pytest.raises(MessageError):
        m.decode_event_message(as_metadata(event))


def test_hellos_of_an_event_stream() -> None:
    assert m.decode_event_hello(as_metadata({"type": "ready", "target": "c-1"})) == m.Ready(target="c-1")
    assert m.decode_event_hello(as_metadata({"type": "ready"})) == m.Ready()
    assert m.decode_event_hello(as_metadata({"type": "bridge", "room": "r", "token": "t", "more": 1})) == (
        m.BridgeHello(room="r", token="t")
    )
    assert m.encode(m.Ready()).payload == b'{"type":"ready"}'
    assert m.encode(m.Ready(target="c-1")).payload == b'{"type":"ready","target":"c-1"}'
    assert m.encode(m.BridgeHello(room="r", token="t")).payload == (
        b'{"type":"bridge","room":"r","token":"t"}'
    )


def test_signals_of_a_media_connection() -> None:
    options = m.SubscribeOptions(
        room="r",
        cluster="c-1",
        connection_id="quic-1-2",
        media=MediaOptions(tracks=[TrackRequest(id="t1", type="video", from_="st1")]),
    )
    signals: list[m.MediaSignal] = [
        m.Ready(),
        m.ClusterHello(room="r", token="t", cluster="c-1"),
        m.TrackHello(id="t1", kind="video"),
        m.Subscribe(options=options),
    ]
    for signal in signals:
        assert m.decode_media(m.encode(signal)) == signal
    assert json.loads(m.encode(signals[3]).payload) == {
        "type": "subscribe",
        "options": {
            "room": "r",
            "cluster": "c-1",
            "connectionId": "quic-1-2",
            "media": {"tracks": [{"id": "t1", "type": "video", "from": "st1"}]},
        },
    }


def test_no_message_shows_its_token() -> None:
    secret = "s3cr3t-room-token"
    for message in (
        m.BridgeHello(room="r", token=secret),
        m.ClusterHello(room="r", token=secret, cluster="c"),
    ):
        assert secret not in repr(message)
        assert secret in m.encode(message).payload.decode()


def test_a_refusal_never_repeats_the_token() -> None:
    secret = "s3cr3t-room-token"
    for value in ({"type": "bridge", "room": 5, "token": secret}, {"type": "bridge", "token": [secret]}):
        with pytest.raises(MessageError) as caught:
            m.decode_event_hello(as_metadata(value))
        assert secret not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
near_misses = st.builds(
    lambda type_, data, more: {"type": type_, "data": data} | more,
    st.sampled_from([event["type"] for event in EVENTS] + ["ready", "bridge", "cluster", "track"]),
    st.sampled_from([event["data"] for event in EVENTS]) | json_values,
    st.dictionaries(st.sampled_from(["room", "token", "target", "id", "kind", "options"]), json_values),
)


@given(st.binary(max_size=60) | near_misses.map(lambda value: json.dumps(value).encode()))
def test_any_metadata_is_understood_or_the_documented_error(payload: bytes) -> None:
    for decode in (m.decode_event_hello, m.decode_event_message, m.decode_media):
        try:
            decode(Metadata(payload))
        except MessageError:
            continue


def test_deep_nesting_is_the_documented_error() -> None:
    payload = b'{"type":"addParticipant","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(MessageError):
        m.decode_event_message(Metadata(payload))
