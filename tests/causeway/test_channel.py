from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.api.agents import AgentLoad
from causeway.channel import (
    MAX_TO_CONTROL,
    Ack,
    Assignment,
    Delta,
    Desired,
    DesiredLink,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    LinkState,
    MessageError,
    Refusal,
    Refuse,
    Report,
    Resync,
    RoundTrip,
    Unknown,
    decode_from_agent,
    decode_from_control,
    encode,
    subprotocol,
)

FROM_AGENT: list[Any] = [
    Hello(epoch=3),
    Hello(epoch=3, version=7),
    Heartbeat(),
    Heartbeat(load=AgentLoad(links=2), round_trips=[RoundTrip(cluster="us-1", ms=80.0, jitter_ms=1.5)]),
    Ack(version=7),
    Refuse(version=7, problems=[Refusal(conference="standup", reason="full")]),
    Report(links=[LinkState(conference="standup", peer="us-1", state="down", error="timed out")], full=True),
    Resync(),
]
LINK = DesiredLink(peer="us-1", role="dial", attempt=2, token="hush")
FROM_CONTROL: list[Any] = [
    Desired(version=1, conferences=[Assignment(conference="standup", kinds=["event"], links=[LINK])]),
    Delta(base=1, version=2, drop=["standup"]),
    LeaseRenewed(ttl=6.0),
    Goodbye(reason="restarting", retry_after=1.0),
]


def test_messages_come_out_as_they_went_in() -> None:
    assert [decode_from_agent(encode(each)) for each in FROM_AGENT] == FROM_AGENT
    assert [decode_from_control(encode(each).encode()) for each in FROM_CONTROL] == FROM_CONTROL
    assert subprotocol() == "causeway.agent.v1"


def test_what_a_newer_side_says_is_passed_over() -> None:
    assert decode_from_agent('{"type":"ack","version":7,"mood":{"good":true}}') == Ack(version=7)
    assert decode_from_agent('{"type":"dream","version":"x"}') == Unknown("dream")
    assert decode_from_control('{"type":"hello","epoch":1}') == Unknown("hello")
    told = decode_from_control(
        '{"type":"desired","version":1,"conferences":[{"conference":"a","kinds":["hologram"],'
        '"links":[{"peer":"b","role":"listen","colour":"red"}]}],"reason":"because"}'
    )
    assert told == Desired(
        version=1,
        conferences=[
            Assignment(conference="a", kinds=["hologram"], links=[DesiredLink(peer="b", role="listen")])
        ],
    )


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"type":7}',
        '{"type":"ack"}',
        '{"type":"ack","version":-1}',
        '{"type":"report","links":[{"conference":"a b","peer":"us-1","state":"up"}]}',
        '{"type":"report","links":[{"conference":"a","peer":"us-1","state":"sideways"}]}',
        '{"type":"heartbeat","round_trips":[{"cluster":"us-1","ms":-1}]}',
        '{"type":"refuse","version":1,"problems":[{"conference":"a","reason":"\\u0000"}]}',
        '{"type":"' + "x" * 65 + '"}',
        b"\xff",
        "[" * 100_000,
        " " * (MAX_TO_CONTROL + 1),
    ],
)
def test_what_is_no_message_is_refused_with_a_short_reason(frame: str | bytes) -> None:
    with pytest.raises(MessageError) as caught:
        decode_from_agent(frame)
    assert len(str(caught.value)) <= 300


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_comes_nothing_else_is_raised(frame: str | bytes) -> None:
    for decode in (decode_from_agent, decode_from_control):
        with suppress(MessageError):
            decode(frame)


def test_a_token_is_not_shown() -> None:
    assert "hush" not in repr(FROM_CONTROL[0])
