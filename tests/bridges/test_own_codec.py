"""Our own wire as bytes: what is encoded comes back, however it is cut; all else is one known error."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.own.codec import Framed, OwnDeframer, Unknown, encode
from bridges.wire.own.errors import OwnCode, OwnWireError
from bridges.wire.own.messages import (
    Close,
    Credit,
    Digest,
    Happened,
    Hello,
    HelloLimits,
    Leave,
    Message,
    Offer,
    Open,
    Opened,
    Ping,
    Pong,
    Position,
    Reach,
    Resume,
    Snapshot,
    Take,
    Withdraw,
)
from bridges.wire.own.values import MAX_DEPTH, canonical, decode_value, encode_value

LIMIT = 4096

ids = st.sampled_from(["eu-1", "us-1", "ap-1"])
channels = st.integers(0, 2**31 - 1)
positions = st.builds(Position, st.integers(0, 2**62 - 1), st.integers(0, 2**63 - 1))
takes = st.dictionaries(ids, positions, max_size=3)
paths = st.lists(ids, min_size=1, max_size=4)
counts = st.integers(0, 2**63 - 1)
reaches = st.dictionaries(ids, st.builds(Reach, st.integers(0, 2**62 - 1), paths), max_size=2)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
raws = values.map(lambda value: msgspec.Raw(canonical(value)))
entries = st.dictionaries(ids, raws, max_size=2)
limits = st.builds(
    HelloLimits,
    message=st.integers(1024, 2**31 - 1),
    channels=st.integers(1, 2**31 - 1),
    lanes=st.integers(1, 64),
    waiting=st.integers(1, 9),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello, st.lists(st.integers(1, 9), min_size=1, max_size=3), ids, limits, st.lists(ids, max_size=2)
    ),
    st.builds(Ping, counts),
    st.builds(Pong, counts),
    st.builds(Open, channels, ids, st.text(min_size=1, max_size=9), takes, counts, positions, reaches),
    st.builds(Opened, channels, takes, counts, reaches),
    st.builds(Close, channels, counts, st.text(max_size=9)),
    st.builds(Offer, channels, ids, st.integers(0, 2**62 - 1), paths),
    st.builds(Withdraw, channels, ids),
    st.builds(Take, channels, ids, counts, positions, st.booleans()),
    st.builds(Leave, channels, ids),
    st.builds(Resume, channels, ids, counts, positions),
    st.builds(Snapshot, channels, ids, counts, positions, paths, entries, entries, st.booleans()),
    st.builds(Happened, channels, ids, positions, paths, st.text(min_size=1, max_size=9), raws),
    st.builds(Digest, channels, ids, positions, st.binary(min_size=16, max_size=16)),
    st.builds(Credit, channels, counts),
)


def read(pieces: list[bytes], *, limit: int = LIMIT) -> list[Any]:
    """Return what comes out: messages encoded again, and errors as their text; the last may have ended it."""
    deframer = OwnDeframer(limit)
    found: list[Any] = []
    for piece in pieces:
        deframer.feed(piece)
        try:
            while (framed := deframer.next_message()) is not None:
                found.append(plain(framed))
        except OwnWireError as error:
            return [*found, ("dead", error.reason, str(error))]
    return found


def plain(framed: Framed) -> Any:
    match framed.message:
        case Unknown(number=number):
            return ("unknown", number)
        case OwnWireError() as error:
            return ("wrong", framed.channel, error.reason)
        case message:
            return encode(message)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 10**6), max_size=8))
def test_what_is_encoded_comes_back_however_it_is_cut(sent: list[Message], cuts: list[int]) -> None:
    data = [encode(message) for message in sent]
    assert read(pieces_of(b"".join(data), cuts)) == data


@given(st.binary(max_size=300), st.lists(st.integers(0, 10**6), max_size=5))
def test_any_bytes_give_messages_or_the_one_error(data: bytes, cuts: list[int]) -> None:
    assert read([data], limit=64) == read(pieces_of(data, cuts), limit=64)


@given(st.lists(st.binary(max_size=60).map(framed), max_size=4))
def test_any_bodies_give_messages_or_the_one_error(bodies: list[bytes]) -> None:
    read(bodies)


@given(messages, st.data())
def test_a_message_that_was_tampered_with_is_read_or_refused(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    read([bytes(body)])


def test_messages_byte_for_byte() -> None:
    assert encode(Ping(7)).hex(" ") == "00 00 00 03 92 02 07"
    take = Take(1, "eu-1", 2, Position(5, 6))
    assert encode(take).hex(" ") == "00 00 00 0d 96 12 01 a4 65 75 2d 31 02 92 05 06 c2"
    happened = Happened(1, "eu-1", Position(5, 7), ["eu-1"], "removeStream", msgspec.Raw(canonical("s1")))
    assert encode(happened)[4:] == msgspec.msgpack.encode(
        [22, 1, "eu-1", [5, 7], ["eu-1"], "removeStream", "s1"]
    )


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes() -> None:
    assert read([b"\0\0\x10\x01"])[0][:2] == ("dead", OwnCode.FRAMING)
    assert read([b"\0\0\0\0"])[0][:2] == ("dead", OwnCode.FRAMING)
    assert read([b"\0\0\x10\x00"]) == []


def test_after_an_error_nothing_is_read_any_more() -> None:
    deframer = OwnDeframer(LIMIT)
    deframer.feed(b"\0\0\0\0")
    for _ in range(2):
        with pytest.raises(OwnWireError):
            deframer.next_message()
        deframer.feed(encode(Ping(1)))
    assert deframer.buffered == 0


def test_elements_at_the_end_and_numbers_that_are_not_known_are_passed_over() -> None:
    longer = framed(msgspec.msgpack.encode([2, 7, "what a later version says"]))
    unknown = framed(msgspec.msgpack.encode([99, {"x": 1}]))
    assert read([longer + unknown + encode(Ping(8))]) == [encode(Ping(7)), ("unknown", 99), encode(Ping(8))]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([24, 3, -1], ("wrong", 3, OwnCode.MESSAGE)),  # of one conference
        ([17, 3, ""], ("wrong", 3, OwnCode.MESSAGE)),
        ([24], ("dead", OwnCode.MESSAGE)),
        ([24, "3", 1], ("dead", OwnCode.MESSAGE)),
        ([2, "x"], ("dead", OwnCode.MESSAGE)),
        ({"a": 1}, ("dead", OwnCode.MESSAGE)),
        ([True, 3], ("dead", OwnCode.MESSAGE)),
        ([], ("dead", OwnCode.MESSAGE)),
    ],
)
def test_what_is_no_message_costs_its_conference_or_the_lane(body: Any, expected: tuple[Any, ...]) -> None:
    found = read([framed(msgspec.msgpack.encode(body))])
    assert [one[: len(expected)] for one in found] == [expected]


def test_tokens_do_not_stand_in_errors() -> None:
    body = msgspec.msgpack.encode([8, 1, "room", "secret" * 100, {}, 1, [1, 1]])
    deframer = OwnDeframer(LIMIT)
    deframer.feed(framed(body))
    found = deframer.next_message()
    assert found is not None
    assert "secret" not in str(found.message)


# --- values ------------------------------------------------------------------------------------------------


@given(values)
def test_values_come_back_and_have_one_encoding(value: Any) -> None:
    encoded = encode_value(value)
    assert decode_value(encoded) == value
    assert encode_value(decode_value(encoded)) == encoded


def test_keys_are_in_the_order_of_their_bytes() -> None:
    assert encode_value({"b": 1, "a": 2, "B": 3}) == encode_value({"B": 3, "a": 2, "b": 1})
    assert encode_value({"b": 1, "a": 2}) == b"\x82\xa1a\x02\xa1b\x01"


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1: 2}, {"a": {None: 1}}, math.nan, [math.inf], 2**64, msgspec.msgpack.Ext(5, b""), "\ud800"],
)
def test_what_json_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_value(value)


@pytest.mark.parametrize(
    "data", [b"\xc4\x01x", b"\x81\x01\x02", b"\xd4\x05\x00", b"\xc1", b"", b"\x01\x02", b"\xa1\xff"]
)
def test_encodings_of_what_json_does_not_have_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_value(data)


def test_values_are_nested_so_deep_and_not_deeper() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode_value(encode_value(value)) == value
    with pytest.raises(ValueError, match="deep"):
        encode_value([value])
    with pytest.raises(ValueError, match=r"."):
        decode_value(b"\x91" * 100_000 + b"\x01")
