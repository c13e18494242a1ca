"""Agents and control one release apart: this one's messages against the frozen ones, both ways.

At the codec, message by message; and over real sockets: an older agent at this control. An agent of this
release at an older control is tests/bridges/test_control_channel.py, whose control speaks frozen words.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from causeway import channel
from tests.bridges import frozen_channel as frozen
from tests.control.agents import Agent, listening
from tests.control.service import running

if TYPE_CHECKING:
    from tests.control.service import Service

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~@:-]{0,20}", fullmatch=True)
NUMBERS = st.integers(0, 2**53)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
PINS = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
ADDRESSES = st.builds(frozen.Address, host=NAMES, port=st.integers(1, 65535), fingerprint=PINS)
LINKS = st.builds(
    frozen.DesiredLink,
    peer=NAMES,
    role=st.sampled_from(["dial", "listen"]),
    attempt=NUMBERS,
    token=st.none() | TEXTS,
    event=st.none() | ADDRESSES,
    media=st.none() | ADDRESSES,
)
ASSIGNMENTS = st.lists(
    st.builds(
        frozen.Assignment,
        conference=NAMES,
        kinds=st.lists(st.sampled_from(["event", "media", "recorder"]), max_size=3),
        links=st.lists(LINKS, max_size=3),
    ),
    max_size=3,
)
FROM_CONTROL = st.one_of(
    st.builds(frozen.Desired, version=NUMBERS, conferences=ASSIGNMENTS),
    st.builds(frozen.Delta, base=NUMBERS, version=NUMBERS, set=ASSIGNMENTS, drop=st.lists(NAMES, max_size=3)),
    st.builds(frozen.Lease, ttl=st.floats(0, 1e6)),
    st.builds(frozen.Goodbye, reason=TEXTS, retry_after=st.floats(0, 1e6)),
)
FROM_AGENT = st.one_of(
    st.builds(frozen.Hello, epoch=NUMBERS, version=st.none() | NUMBERS),
    st.builds(
        frozen.Heartbeat,
        load=st.builds(
            frozen.Load,
            conferences=st.integers(0, 1000),
            links=st.integers(0, 1000),
            cpu=st.floats(0, 1),
            bandwidth_in=NUMBERS.filter(lambda bits: bits < 2**53),
            bandwidth_out=st.integers(0, 1000),
        ),
        round_trips=st.lists(
            st.builds(
                frozen.RoundTrip, cluster=NAMES, ms=st.floats(0, 600_000), jitter_ms=st.floats(0, 600_000)
            ),
            max_size=3,
        ),
    ),
    st.builds(frozen.Ack, version=NUMBERS),
    st.builds(
        frozen.Refuse,
        version=NUMBERS,
        problems=st.lists(
            st.builds(frozen.Refusal, conference=NAMES, peer=st.none() | NAMES, reason=TEXTS),
            max_size=3,
        ),
    ),
    st.builds(
        frozen.Report,
        links=st.lists(
            st.builds(
                frozen.LinkState,
                conference=NAMES,
                peer=NAMES,
                state=st.sampled_from(["up", "down"]),
                error=st.none() | TEXTS,
            ),
            max_size=3,
        ),
        full=st.booleans(),
    ),
    st.just(frozen.Resync()),
)


def meaning(message: Any) -> Any:
    """Return a message as both releases would say it, defaults left out."""
    return msgspec.json.decode(msgspec.json.encode(message))


def newer(frame: str) -> str:
    """Return a message as a release after this one may say it: with more fields, at every level."""

    def grown(value: Any) -> Any:
        if isinstance(value, dict):
            return {**{key: grown(each) for key, each in value.items()}, "of_later": [1, {"x": None}]}
        return [grown(each) for each in value] if isinstance(value, list) else value

    return msgspec.json.encode(grown(msgspec.json.decode(frame))).decode()


@given(FROM_CONTROL)
def test_an_older_controls_words_are_understood_by_an_agent_of_today(message: Any) -> None:
    understood = channel.decode_from_control(frozen.encode(message))
    assert meaning(understood) == meaning(message)


@given(FROM_CONTROL)
def test_an_older_agent_understands_a_control_of_today(message: Any) -> None:
    today = channel.decode_from_control(frozen.encode(message))
    assert not isinstance(today, channel.Unknown)
    assert frozen.from_control(channel.encode(today)) == message
    assert frozen.from_control(newer(channel.encode(today))) == message


@given(FROM_AGENT)
def test_an_older_agents_words_are_understood_by_a_control_of_today(message: Any) -> None:
    understood = channel.decode_from_agent(frozen.encode(message))
    assert meaning(understood) == meaning(message)


@given(FROM_AGENT)
def test_an_older_control_understands_an_agent_of_today(message: Any) -> None:
    today = channel.decode_from_agent(frozen.encode(message))
    assert not isinstance(today, channel.Unknown)
    assert frozen.from_agent(channel.encode(today)) == message
    assert frozen.from_agent(newer(channel.encode(today))) == message


@given(FROM_AGENT, FROM_CONTROL)
def test_words_of_a_release_after_this_one_are_understood(agents: Any, controls: Any) -> None:
    assert meaning(channel.decode_from_agent(newer(frozen.encode(agents)))) == meaning(agents)
    assert meaning(channel.decode_from_control(newer(frozen.encode(controls)))) == meaning(controls)


@pytest.mark.parametrize("decode", [channel.decode_from_agent, channel.decode_from_control])
def test_types_of_a_release_after_this_one_are_told_from_nonsense(decode: Any) -> None:
    assert decode('{"type":"rehearse","stage":[1]}') == channel.Unknown("rehearse")


# --- over real sockets --------------------------------------------------------------------------


def old_agent(service: Service, at: str, name: str, cluster: str, port: int) -> Agent:
    return Agent(id=name, cluster=cluster, at=at, key=service.keys["enrolment"], port=port)


async def test_an_older_agent_at_this_control(database_url: str) -> None:
    async with (
        running(database_url) as service,
        listening(service) as at,
    ):
        agent = old_agent(service, at, "us-a", "us-1", 7710)
        await agent.register()
        async with websockets.connect(
            f"ws://{at}/v1/agents/us-a/channel",
            additional_headers={"Authorization": f"Bearer {agent.key}"},
            subprotocols=[websockets.Subprotocol(frozen.SUBPROTOCOL)],
        ) as socket:

            async def hear(kind: type[Any]) -> Any:
                async with asyncio.timeout(20):
                    while True:
                        message = frozen.from_control(await socket.recv())
                        if isinstance(message, kind):
                            return message

            await socket.send(frozen.encode(frozen.Hello(epoch=agent.epoch)))
            desired = await hear(frozen.Desired)
            assert desired.conferences == []
            await socket.send(frozen.encode(frozen.Ack(version=desired.version)))
            await socket.send(newer(frozen.encode(frozen.Report(links=[], full=True))))
            await socket.send('{"type":"rehearse"}')
            await socket.send(
                frozen.encode(
                    frozen.Heartbeat(
                        load=frozen.Load(conferences=3),
                        round_trips=[frozen.RoundTrip(cluster="eu-1", ms=80.0, jitter_ms=3.0)],
                    )
                )
            )
            assert (await hear(frozen.Lease)).ttl > 0
            await socket.send(frozen.encode(frozen.Resync()))
            again = await hear(frozen.Desired)
            assert again.version > desired.version
            shown = (await service.operator.get("/v1/agents/us-a")).json()
            assert shown["acked_version"] == desired.version
            assert shown["load"]["conferences"] == 3
            assert shown["connected"] is True
