"""What conference nodes ask of an event bridge: OWT's argument lists, and any others."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.event.calls import Broadcast, Notify, parse_broadcast, parse_destroyed, parse_notify
from bridges.node.port import RpcError, runs_on
from bridges.wire.messages import Event

GONE = {"type": "removeParticipant", "data": "p2"}
EVENT = Event("removeParticipant", "p2")


def test_notify_names_node_event_and_for_initialize_the_stream() -> None:
    assert parse_notify(["n_0", {"rpcId": "n_0"}, GONE]) == Notify("n_0", EVENT, None)
    assert parse_notify(["n_0", {}, GONE]) == Notify("n_0", EVENT, None)
    assert parse_notify(["someone", {"rpcId": "n_1", "more": 1}, GONE]) == Notify("n_1", EVENT, None)
    about = {"session": "s", "stream": "4", "type": "initialize", "rpcId": "n_0"}
    state = {"type": "initialize", "data": {"participants": {}, "streams": {}}}
    assert parse_notify(["n_0", about, state]) == Notify(
        "n_0", Event("initialize", state["data"]), ("s", "4")
    )
    assert parse_notify(["n_0", {**about, "stream": 4}, state]) == parse_notify(["n_0", about, state])


def test_what_is_for_a_participant_is_no_event_between_clusters() -> None:
    assert parse_notify(["p1", "text", {"message": "hello"}]) is None
    assert parse_broadcast(["n_0", [], "participant", {"action": "join"}]) is None


def test_broadcast_leaves_out_whom_it_names() -> None:
    assert parse_broadcast(["n_0", ["c-1"], {}, GONE]) == Broadcast("n_0", EVENT, frozenset({"c-1"}))


def test_a_destroyed_room_is_named_in_either_way() -> None:
    assert parse_destroyed(["room-1"]) == "room-1"
    assert parse_destroyed(["p1", {"rpcId": "n_0"}, {"room": "room-1"}]) == "room-1"


@pytest.mark.parametrize(
    ("parse", "args"),
    [
        (parse_notify, []),
        (parse_notify, ["n_0", {}, {"type": "explode", "data": 1}]),
        (parse_notify, ["n_0", {"type": 7}, GONE]),
        (parse_notify, [5, {}, GONE]),
        (parse_broadcast, ["n_0", "c-1", {}, GONE]),
        (parse_broadcast, ["n_0"]),
        (parse_destroyed, []),
        (parse_destroyed, [""]),
        (parse_destroyed, ["p1", {}, {"room": 5}]),
    ],
)
def test_other_shapes_are_refused(parse: Any, args: list[Any]) -> None:
    with pytest.raises(RpcError):
        parse(args)


@given(
    st.lists(
        st.recursive(
            st.none() | st.text(max_size=5) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "data", "rpcId", "room", "session", "stream"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_any_arguments_are_a_call_or_the_one_error(args: list[Any]) -> None:
    args = json.loads(json.dumps(args))
    for parse in (parse_notify, parse_broadcast, parse_destroyed):
        with suppress(RpcError):
            parse(args)


def test_a_dead_worker_takes_its_nodes_along_and_no_others() -> None:
    assert runs_on("conference-a@h_1", "conference-a@h_1")
    assert runs_on("conference-a@h_1", "conference-a@h")
    assert not runs_on("conference-a@h_10", "conference-a@h_1")
    assert not runs_on("conference-ab@h_1", "conference-a")
    assert not runs_on("", "conference-a@h")
