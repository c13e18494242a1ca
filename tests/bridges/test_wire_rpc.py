"""OWT's RPC envelope."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire import rpc
from bridges.wire.errors import MessageError


def test_a_request_on_the_wire() -> None:
    request = rpc.Request(to="owt-cluster", method="keepAlive", args=["x"], corr_id=1, reply_to="amq_1")
    assert json.loads(rpc.encode(request)) == {
        "to": "owt-cluster",
        "method": "keepAlive",
        "args": ["x"],
        "corrID": 1,
        "replyTo": "amq_1",
    }
    assert rpc.decode(rpc.encode(request)) == request


def test_a_cast_has_no_corr_id() -> None:
    cast = rpc.decode(b'{"to":"n","method":"reportLoad","args":["id",0.5]}')
    assert isinstance(cast, rpc.Request)
    assert cast.corr_id is None


def test_replies_on_the_wire() -> None:
    assert rpc.decode(b'{"data":"ok","corrID":5,"type":"callback"}') == rpc.Reply(corr_id=5, data="ok")
    failed = rpc.Reply(corr_id=18, data=rpc.FAILED, err="Participant has not joined")
    assert json.loads(rpc.encode(failed)) == {
        "type": "callback",
        "corrID": 18,
        "data": "error",
        "err": "Participant has not joined",
    }


@given(
    st.binary(max_size=50)
    | st.dictionaries(
        st.sampled_from(["to", "method", "args", "corrID", "replyTo", "type", "data", "err"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers()) | st.just("callback"),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_message_or_the_documented_error(data: bytes) -> None:
    try:
        message = rpc.decode(data)
    except MessageError:
        return
    assert rpc.decode(rpc.encode(message)) == message


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="limit is"):
        rpc.decode(b" " * (rpc.MAX_RPC_BYTES + 1))
