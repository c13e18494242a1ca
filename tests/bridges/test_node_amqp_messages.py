"""OWT's AMQP bodies: the shapes, and any bytes."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.node.amqp.messages import (
    Exit,
    decode_exit,
    decode_reply,
    decode_request,
    encode_refusal,
    encode_reply,
    encode_request,
)
from bridges.node.amqp.settings import AmqpSettings
from bridges.wire import rpc
from bridges.wire.errors import MessageError
from causeway.errors import ConfigError

LIMIT = 10_000


def test_requests_and_replies_have_owts_fields_and_no_others() -> None:
    call = rpc.Request(to="x", method="join", args=["eventbridge", {}], corr_id=0, reply_to="amq_1")
    assert json.loads(encode_request(call)) == {
        "method": "join",
        "args": ["eventbridge", {}],
        "corrID": 0,
        "replyTo": "amq_1",
    }
    assert decode_request(encode_request(call), to="x", max_bytes=LIMIT) == call
    cast = rpc.Request(to="x", method="reportLoad", args=["id", 0.5])
    assert json.loads(encode_request(cast)) == {"method": "reportLoad", "args": ["id", 0.5]}
    assert decode_request(encode_request(cast), to="x", max_bytes=LIMIT) == cast
    assert json.loads(encode_reply(0, None)) == {"data": None, "corrID": 0, "type": "callback"}
    assert json.loads(encode_reply(3, {"a": 1}, "no")) == {
        "data": "error",
        "corrID": 3,
        "type": "callback",
        "err": "no",
    }
    assert decode_reply(encode_reply(3, ["x"]), max_bytes=LIMIT) == rpc.Reply(corr_id=3, data=["x"])


@pytest.mark.parametrize("method", ["publish", "unpublish", "subscribe", "unsubscribe", "linkup", "cutoff"])
def test_a_refused_media_call_is_answered_with_what_nodes_look_for(method: str) -> None:
    told = json.loads(encode_refusal(3, method, "no such track"))
    assert told == {"data": {"type": "failed", "reason": "no such track"}, "corrID": 3, "type": "callback"}


def test_any_other_refused_call_fails() -> None:
    told = json.loads(encode_refusal(3, "startCascading", "no"))
    assert told == {"data": "error", "corrID": 3, "type": "callback", "err": "no"}


def test_what_nobody_can_be_answered_for_is_a_cast() -> None:
    for body in (b'{"method":"m","corrID":1}', b'{"method":"m","replyTo":"q","args":null,"more":1}'):
        assert decode_request(body, to="x", max_bytes=LIMIT) == rpc.Request(to="x", method="m")


def test_exits_are_read_as_owt_announces_them() -> None:
    body = b'{"reason":"abnormal","message":{"purpose":"conference","id":"c_0","type":"node"}}'
    assert decode_exit(body, max_bytes=LIMIT) == Exit(purpose="conference", id="c_0", type="node")


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(["method", "args", "corrID", "replyTo", "type", "data", "reason", "message"])
                | st.text(),
                v,
            )
        ),
        max_leaves=12,
    ).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_a_message_or_the_one_error(body: bytes) -> None:
    for read in (
        lambda: decode_request(body, to="x", max_bytes=100),
        lambda: decode_reply(body, max_bytes=100),
        lambda: decode_exit(body, max_bytes=100),
    ):
        with suppress(MessageError):
            read()


@pytest.mark.parametrize("read", [decode_reply, decode_exit])
def test_what_is_too_large_is_not_read(read: object) -> None:
    with pytest.raises(MessageError, match="limit is 10"):
        read(b" " * 11, max_bytes=10)  # type: ignore[operator] # both take the same


def test_where_the_broker_is_is_said_without_credentials() -> None:
    settings = AmqpSettings(url="amqps://me:secret@[2001:db8::1]:5671/vhost", password="other")
    assert settings.where == "amqps://[2001:db8::1]:5671/vhost"
    assert "secret" not in repr(settings)
    assert "other" not in repr(settings)
    for wrong in ("http://h", "amqp://", "amqp://me:secret@h:99999", "amqp://h:0", "x"):
        with pytest.raises(ConfigError, match="is not an amqp") as raised:
            _ = AmqpSettings(url=wrong).where
        assert "secret" not in str(raised.value)
