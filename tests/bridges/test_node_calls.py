"""The bookkeeping of calls, without any network."""

from __future__ import annotations

import pytest

from bridges.node.calls import RpcCalls, outcome
from bridges.node.port import NodeUnreachableError, RpcError
from bridges.wire.rpc import Reply


def test_each_reply_finds_its_call_once() -> None:
    calls: RpcCalls[str] = RpcCalls()
    first = calls.begin("a", "node", "getRoomToken", [], deadline=1.0, reply_to="me")
    second = calls.begin("b", "node", "getRoomToken", ["x"], deadline=2.0)
    assert (first.to, first.method, first.args, first.reply_to) == ("node", "getRoomToken", [], "me")
    assert first.corr_id is not None
    assert second.corr_id is not None
    assert first.corr_id != second.corr_id
    assert calls.take(second.corr_id) == "b"
    assert calls.take(second.corr_id) is None
    assert calls.take(first.corr_id) == "a"
    assert calls.take(999) is None
    assert len(calls) == 0


def test_deadlines_pass_by_the_time_given() -> None:
    calls: RpcCalls[str] = RpcCalls()
    calls.begin("late", "n", "m", [], deadline=5.0)
    calls.begin("early", "n", "m", [], deadline=1.0)
    assert calls.expire(0.9) == []
    assert calls.expire(1.0) == ["early"]
    assert calls.expire(1.0) == []
    assert calls.expire(9.0) == ["late"]


def test_a_lost_connection_fails_every_call() -> None:
    calls: RpcCalls[str] = RpcCalls()
    for waiter in "abc":
        calls.begin(waiter, "n", "m", [], deadline=1.0)
    assert calls.fail_all() == ["a", "b", "c"]
    assert calls.fail_all() == []


def test_calls_are_bounded() -> None:
    calls: RpcCalls[int] = RpcCalls(max_outstanding=2)
    calls.begin(1, "n", "m", [], deadline=1.0)
    calls.begin(2, "n", "m", [], deadline=1.0)
    with pytest.raises(NodeUnreachableError):
        calls.begin(3, "n", "m", [], deadline=1.0)
    calls.expire(1.0)
    calls.begin(3, "n", "m", [], deadline=1.0)


def test_outcome() -> None:
    assert outcome(Reply(corr_id=1, data={"a": 1})) == {"a": 1}
    assert outcome(Reply(corr_id=1)) is None
    with pytest.raises(RpcError, match="gone"):
        outcome(Reply(corr_id=1, data="error", err="gone"))
    with pytest.raises(RpcError):
        outcome(Reply(corr_id=1, data="error"))
    with pytest.raises(RpcError) as long:
        outcome(Reply(corr_id=1, err="x" * 5000))
    assert len(str(long.value)) == 300
