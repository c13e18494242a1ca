"""The event stream's conversation, without any network."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.event import session as module
from bridges.event.session import (
    EventReceived,
    EventSession,
    PeerReady,
    Role,
    SessionEvent,
    State,
    TokenPresented,
    Violated,
)
from bridges.wire import framing, messages
from bridges.wire.errors import (
    FramingError,
    MessageError,
    OversizedError,
    ReplayedError,
    SequenceError,
    UnknownMessageError,
    WireError,
)
from bridges.wire.frame import Feedback
from bridges.wire.framing import Metadata
from bridges.wire.messages import BridgeHello, Event, Ready

READY = framing.encode(messages.encode(Ready(target="west")))
BARE_READY = framing.encode(messages.encode(Ready()))
BRIDGE = framing.encode(messages.encode(BridgeHello(room="r", token="right")))
EVENT = framing.encode(messages.encode(Event(type="removeParticipant", data="p1")))
FEEDBACK = framing.encode(Feedback.request_key_frame())
SOMETHING_LONG = framing.encode(Metadata(b"{" * 100))
RECEIVED = EventReceived(event=Event(type="removeParticipant", data="p1"))


def listener(**limits: int) -> EventSession:
    return EventSession.listener(**limits)


def dialer() -> EventSession:
    return EventSession.dialer(cluster="west", room="r", token="right")


def state_of(session: EventSession) -> State:
    """Return the state; a call, so that mypy does not take it for unchanged."""
    return session.state


def error_of(events: list[SessionEvent]) -> WireError:
    assert isinstance(events[-1], Violated)
    assert not any(isinstance(event, Violated) for event in events[:-1])
    return events[-1].error


def test_the_two_roles_talk_to_each_other() -> None:
    west, east = dialer(), listener()
    assert east.receive_data(west.data_to_send()) == [PeerReady(cluster="west")]
    assert west.receive_data(east.data_to_send()) == [PeerReady(cluster=None)]
    assert west.state is State.OPEN
    assert east.receive_data(west.data_to_send()) == [TokenPresented(room="r", token="right")]
    assert state_of(east) is State.CHECKING_TOKEN
    assert east.token_accepted() == []
    assert state_of(east) is State.OPEN
    for one, other in ((west, east), (east, west)):
        one.send_event(Event(type="removeParticipant", data="p1"))
        assert other.receive_data(one.data_to_send()) == [RECEIVED]
        assert one.data_to_send() == b""


def test_what_follows_the_token_waits_for_the_verdict() -> None:
    east = listener()
    assert east.receive_data(READY + BRIDGE + EVENT + EVENT) == [
        PeerReady(cluster="west"),
        TokenPresented(room="r", token="right"),
    ]
    assert east.receive_data(EVENT) == []
    assert east.token_accepted() == [RECEIVED, RECEIVED, RECEIVED]


def test_refused_token_closes_and_nothing_is_read() -> None:
    east = listener()
    east.receive_data(READY + BRIDGE + EVENT)
    east.token_refused()
    assert east.state is State.CLOSED
    assert east.receive_data(EVENT) == []
    assert east.data_to_send() == b""
    with pytest.raises(RuntimeError):
        east.token_accepted()


def test_too_much_while_the_token_is_checked() -> None:
    east = listener(max_unchecked_bytes=len(EVENT))
    assert not any(isinstance(e, Violated) for e in east.receive_data(READY + BRIDGE + EVENT))
    assert isinstance(error_of(east.receive_data(b"\0")), OversizedError)
    assert east.state is State.CLOSED


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (BRIDGE, SequenceError),
        (EVENT, SequenceError),
        (READY + EVENT, SequenceError),
        (READY + READY, ReplayedError),
        (BARE_READY, MessageError),
        (framing.encode(Metadata(b"{")), MessageError),
        (framing.encode(Metadata(b'{"type":"ready","target":[]}')), MessageError),
        (FEEDBACK, UnknownMessageError),
        (framing.encode(Metadata(b'{"type":"cluster"}')), UnknownMessageError),
        (b"\0\0\0\x05\x3b", UnknownMessageError),
        (b"\0\0\0\x30\x8f", UnknownMessageError),
        (b"\0\0\0\0\x3a", FramingError),
        (framing.encode(Metadata(b" " * 5000)), OversizedError),
        (b"\x7f\xff\xff\xff\x3a", OversizedError),
    ],
)
def test_what_a_listener_does_not_take(sent: bytes, expected: type[WireError]) -> None:
    whole = listener()
    events = whole.receive_data(sent)
    assert type(error_of(events)) is expected
    assert whole.state is State.CLOSED
    assert whole.data_to_send() == b""
    assert not any(isinstance(event, EventReceived) for event in events)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (BRIDGE, SequenceError),
        (EVENT, SequenceError),
        (BARE_READY + BARE_READY, ReplayedError),
        (BARE_READY + BRIDGE, SequenceError),
        (BARE_READY + FEEDBACK, UnknownMessageError),
        (BARE_READY + framing.encode(Metadata(b'{"type":"removeParticipant","data":5}')), MessageError),
        (
            BARE_READY + framing.encode(Metadata(b'{"type":"onCascadingDisconnected"}')),
            UnknownMessageError,
        ),
    ],
)
def test_what_a_dialer_does_not_take(sent: bytes, expected: type[WireError]) -> None:
    west = dialer()
    assert type(error_of(west.receive_data(sent))) is expected


@pytest.mark.parametrize("again", [READY, BRIDGE])
def test_what_was_said_once_is_not_said_again(again: bytes) -> None:
    east = listener()
    east.receive_data(READY + BRIDGE)
    east.token_accepted()
    assert type(error_of(east.receive_data(again))) is ReplayedError


def test_what_came_before_a_violation_counts() -> None:
    east = listener()
    east.receive_data(READY + BRIDGE)
    east.token_accepted()
    events = east.receive_data(EVENT + FEEDBACK + EVENT)
    assert events[0] == RECEIVED
    assert isinstance(error_of(events), UnknownMessageError)
    assert len(events) == 2


def test_events_cannot_be_sent_before_the_stream_is_open() -> None:
    for session in (dialer(), listener()):
        with pytest.raises(RuntimeError):
            session.send_event(Event(type="removeParticipant", data="p"))


def test_a_session_that_is_over_keeps_nothing() -> None:
    east = listener()
    assert isinstance(error_of(east.receive_data(READY + SOMETHING_LONG + bytes(9000))), WireError)
    assert east._deframer.buffered == 0
    east.receive_data(bytes(9000))
    assert east._deframer.buffered == 0


def test_closed_by_us() -> None:
    west = dialer()
    west.close()
    assert west.data_to_send() == b""
    assert west.receive_data(BARE_READY) == []


def test_token_does_not_show() -> None:
    assert "right" not in repr(TokenPresented(room="r", token="right"))


def test_every_transition_of_the_table_is_reachable_and_closed_is_final() -> None:
    assert all(state is not State.CLOSED for _, state, _ in module._NEXT)
    for role in Role:
        reached = {State.AWAIT_READY}
        while True:
            further = {
                target for (r, state, _), target in module._NEXT.items() if r is role and state in reached
            }
            if further <= reached:
                break
            reached |= further
        assert State.OPEN in reached
        assert {state for r, state, _ in module._NEXT if r is role} <= reached


def test_no_clock_socket_or_task_in_here() -> None:
    tree = ast.parse(inspect.getsource(module))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in {"asyncio", "socket", "time", "aioquic"} for name in imported)


# --- properties ---------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        READY,
        BARE_READY,
        BRIDGE,
        EVENT,
        FEEDBACK,
        framing.encode(Metadata(b"{}")),
        framing.encode(Metadata(b" " * 2000)),
        b"\0\0\0\0\0",
        b"\xff",
        b"",
    ]
)
STREAMS = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=8).map(b"".join))
MAKERS = st.sampled_from([dialer, lambda: listener(max_hello_bytes=1024, max_unchecked_bytes=300)])


def outcome(session: EventSession, chunks: list[bytes]) -> tuple[list[Any], State]:
    events: list[SessionEvent] = []
    for chunk in chunks:
        events += session.receive_data(chunk)
    if session.state is State.CHECKING_TOKEN:
        events += session.token_accepted()
    return [
        (type(event), type(event.error)) if isinstance(event, Violated) else event for event in events
    ], session.state


@settings(deadline=None)  # the machine may be busy
@given(make=MAKERS, data=STREAMS, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_how_bytes_are_cut_decides_nothing(make: Any, data: bytes, cuts: list[int]) -> None:
    """Whole, byte by byte and split anywhere: the same events, or the same one documented error."""
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    split = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    whole = outcome(make(), [data])
    assert outcome(make(), [data[i : i + 1] for i in range(len(data))]) == whole
    assert outcome(make(), split) == whole


@settings(deadline=None)
@given(data=st.lists(st.one_of(PIECES, st.binary(max_size=30)), max_size=30))
def test_no_listener_opens_without_an_accepted_token(data: list[bytes]) -> None:
    """Whatever is sent, nothing is taken for an event and OPEN is not reached by bytes alone."""
    east = listener()
    events: list[SessionEvent] = []
    for piece in data:
        events += east.receive_data(piece)
    assert east.state is not State.OPEN
    assert not any(isinstance(event, EventReceived) for event in events)
    presented = [event for event in events if isinstance(event, TokenPresented)]
    assert len(presented) <= 1
    if east.state is State.CHECKING_TOKEN:
        assert len(presented) == 1
