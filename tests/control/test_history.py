"""Folding events into what a conference was: from the beginning, from a checkpoint, and from the middle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from causeway.api import EVENT_KINDS, ConferenceEvent, ConferenceState
from control.delivery.history import History

START = datetime(2026, 1, 1, tzinfo=UTC)
FEW = st.sampled_from(["a", "b"])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "cluster": FEW,
        "region": FEW,
        "ordinal": st.integers(1, 3),
        "participant": FEW,
        "user": FEW,
        "role": FEW,
        "dialer": FEW,
        "listener": FEW,
        "stream": FEW,
        "tracks": st.just([{"kind": "audio"}]),
        "locked": st.booleans(),
        "metadata": st.just({"x": 1}),
        "new_field": FEW,
    },
)
EVENTS = st.lists(st.tuples(st.sampled_from([*EVENT_KINDS, "kind.unheard"]), BODIES), max_size=30)


def log(drawn: list[tuple[str, dict[str, Any]]]) -> list[ConferenceEvent]:
    return [
        ConferenceEvent(
            id=str(n), conference="c", seq=n, at=START + timedelta(seconds=n), kind=kind, body=body
        )
        for n, (kind, body) in enumerate(drawn, 1)
    ]


def folded(events: list[ConferenceEvent], start: ConferenceState | None = None) -> ConferenceState | None:
    history = History("c", start)
    history.apply_all(events)
    return history.state()


@given(EVENTS, st.integers(0, 30))
def test_a_checkpoint_stands_for_what_was_before_it(
    drawn: list[tuple[str, dict[str, Any]]], cut: int
) -> None:
    events = log(drawn)
    kept = folded(events[:cut])
    stored = None if kept is None else msgspec.convert(msgspec.to_builtins(kept), ConferenceState)
    assert stored == kept
    assert folded(events[cut:], stored) == folded(events)
    # What was taken in already changes nothing.
    assert folded(events, folded(events)) == folded(events)


@given(EVENTS, st.integers(0, 30))
def test_a_log_that_begins_in_the_middle_gives_what_can_be_known(
    drawn: list[tuple[str, dict[str, Any]]], cut: int
) -> None:
    state = folded(log(drawn)[cut:])
    assert (state is None) == (cut >= len(drawn))


def test_nothing_is_known_of_nothing_and_nobody_is_left_after_the_end() -> None:
    assert folded([]) is None
    assert History("c").over
    events = log(
        [
            ("conference.created", {"type": "t", "locked": True}),
            ("placement.ready", {"cluster": "a", "ordinal": 1, "region": "r"}),
            ("participant.joined", {"cluster": "a", "participant": "p", "user": "u", "role": "r"}),
            ("participant.moved", {"participant": "p", "from": "a", "to": "b"}),
            ("conference.ended", {}),
            ("conference.created", {"type": "u"}),
        ]
    )
    states = [folded(events[:n]) for n in (4, 5, 6)]
    shown = [(s.state, s.type, s.locked, len(s.participants), len(s.placements)) for s in states if s]
    assert shown == [
        ("active", "t", True, 1, 1),
        ("ended", "t", True, 0, 0),
        ("active", "u", False, 0, 0),
    ]


def test_times_are_those_of_the_first_event() -> None:
    joined = {"cluster": "a", "participant": "p", "user": "u", "role": "r"}
    state = folded(log([("participant.joined", joined), ("participant.joined", joined | {"user": "v"})]))
    assert state is not None
    (participant,) = state.participants
    assert (participant.user, participant.joined_at) == ("v", START + timedelta(seconds=1))
