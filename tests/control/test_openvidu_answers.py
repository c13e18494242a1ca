from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.drivers import openvidu_answers
from control.drivers.base import Health, MalformedAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable


def token_of(url: Any, **more: Any) -> bytes:
    return json.dumps({"connectionId": "con_1", "status": "pending", "token": url, **more}).encode()


QUERY = "sessionId=room-1&token=tok_X"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"wss://media.example?{QUERY}", ("media.example", 443, True)),
        (f"wss://media.example:4443?{QUERY}", ("media.example", 4443, True)),
        (f"wss://media.example/?{QUERY}", ("media.example", 443, True)),
        (f"wss://192.0.2.1:4443/behind?{QUERY}&edition=pro", ("192.0.2.1", 4443, True)),
        (f"wss://[2001:db8::1]:4443?{QUERY}", ("2001:db8::1", 4443, True)),
        (f"wss://[2001:db8::1]?{QUERY}", ("2001:db8::1", 443, True)),
        (f"ws://localhost?{QUERY}", ("localhost", 80, False)),
    ],
)
def test_token(url: str, expected: tuple[str, int, bool]) -> None:
    token = openvidu_answers.read_token(token_of(url), "room-1")
    assert (token.ip, token.port, token.secure) == expected
    assert token.text == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "tok_X",
        f"https://media.example?{QUERY}",
        f"wss://?{QUERY}",
        f"wss://me:secret@media.example?{QUERY}",
        f"wss://me@media.example?{QUERY}",
        f"wss://media.example:0?{QUERY}",
        f"wss://media.example:65536?{QUERY}",
        f"wss://media.example:x?{QUERY}",
        f"wss://[::1?{QUERY}",
        f"wss://[x]?{QUERY}",
        f"wss://[fe80::1%25eth0]?{QUERY}",
        f"wss://media example?{QUERY}",
        f"wss://media.example\n?{QUERY}",
        f"wss://media.example?{QUERY}\n",
        f"wss://médià.example?{QUERY}",
        "wss://media.example",
        "wss://media.example?sessionId=room-1",
        "wss://media.example?token=tok_X",
        "wss://media.example?sessionId=room-2&token=tok_X",
        f"wss://media.example?{QUERY}&sessionId=room-2",
        f"wss://media.example?{QUERY}" + "&a=1" * 200,
        f"wss://media.example?{QUERY}&pad=" + "x" * 5000,
    ],
)
def test_token_that_is_none(url: Any) -> None:
    with pytest.raises(MalformedAnswerError) as caught:
        openvidu_answers.read_token(token_of(url), "room-1")
    assert "secret" not in str(caught.value)
    assert "tok_X" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": "UP", "disconnectedMediaNodes": []}, Health(state="up")),
        (
            {"status": "UNSTABLE", "disconnectedMediaNodes": ["m1"]},
            Health(state="degraded", lost_nodes=("m1",)),
        ),
        ({"status": "DOWN"}, Health(state="down")),
        (
            {
                "clusterStatus": "UNSTABLE",
                "nodes": {
                    "master_1": {"status": "UNSTABLE", "id": "master_1", "disconnectedMediaNodes": ["m1"]},
                    "master_2": {"status": "UNSTABLE", "disconnectedMediaNodes": ["m2", "m1"]},
                },
            },
            Health(state="degraded", lost_nodes=("m1", "m2")),
        ),
    ],
)
def test_health(answer: Any, expected: Health) -> None:
    assert openvidu_answers.read_health(json.dumps(answer).encode()) == expected


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"status": "FINE"}', b'{"status": "UP", "nodes": 1}'])
def test_health_that_is_none(answer: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        openvidu_answers.read_health(answer)


@pytest.mark.parametrize(
    "more", [{"mediaNodeId": "media_1"}, {"mediaNode": {"id": "media_1"}, "mediaNodeId": "old"}]
)
def test_media_node_under_both_names(more: dict[str, Any]) -> None:
    session = openvidu_answers.read_session(json.dumps({"id": "s", **more}).encode())
    assert session.node == "media_1"


def test_fields_and_words_may_grow() -> None:
    answer = {"id": "r", "sessionId": "s", "status": "resting", "novelty": [{}], "duration": 3}
    recording = openvidu_answers.read_recording(json.dumps(answer).encode())
    assert (recording.status, recording.running, recording.duration) == ("resting", False, 3.0)


READERS: list[Callable[[bytes], object]] = [
    openvidu_answers.read_session,
    openvidu_answers.read_sessions,
    openvidu_answers.read_connections,
    openvidu_answers.read_recording,
    openvidu_answers.read_recordings,
    openvidu_answers.read_media_nodes,
    openvidu_answers.read_health,
    lambda answer: openvidu_answers.read_token(answer, "room-1"),
]

words = st.sampled_from(
    [
        "id",
        "connectionId",
        "status",
        "content",
        "items",
        "connections",
        "publishers",
        "sessionId",
        "token",
        "mediaNode",
        "nodes",
        "disconnectedMediaNodes",
        "clusterStatus",
        "duration",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["UP", "active", f"wss://h?{QUERY}", "wss://[", "wss://h:x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=20,
)


@pytest.mark.parametrize("read", READERS)
@given(answer=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_read_or_malformed(read: Callable[[bytes], object], answer: bytes) -> None:
    with suppress(MalformedAnswerError):
        read(answer)


@given(url=st.text(max_size=60).map(lambda rest: f"wss://{rest}?{QUERY}"))
def test_any_url_is_a_token_or_malformed(url: str) -> None:
    with suppress(MalformedAnswerError):
        token = openvidu_answers.read_token(token_of(url), "room-1")
        assert token.text == url
        assert 1 <= token.port <= 65535
