from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.drivers import owt_answers
from control.drivers.base import MalformedAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable


def token_text(host: Any, **more: Any) -> bytes:
    return b64encode(json.dumps({"tokenId": "t", "host": host, "signature": "s", **more}).encode())


@pytest.mark.parametrize(
    ("host", "secure", "expected"),
    [
        ("192.0.2.1:8080", False, ("192.0.2.1", 8080)),
        ("portal.example:443", True, ("portal.example", 443)),
        ("portal.example", True, ("portal.example", 443)),
        ("portal.example/", False, ("portal.example", 80)),
        ("[2001:db8::1]:8080", True, ("2001:db8::1", 8080)),
        ("2001:db8::1:8080", True, ("2001:db8::1", 8080)),
        ("[2001:db8::1]", True, ("2001:db8::1", 443)),
    ],
)
def test_portal_address(host: str, secure: bool, expected: tuple[str, int]) -> None:
    token = owt_answers.read_token(token_text(host, secure=secure))
    assert (token.ip, token.port) == expected
    assert token.secure is secure


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":",
        ":80",
        "h:",
        "h:0",
        "h:65536",
        "h:-1",
        "h:8o",
        "h:٣",
        "a b:80",
        "u@h:80",
        "h/x:80",
        "::1",
        "[x]:80",
    ],
)
def test_portal_address_that_is_none(host: str) -> None:
    with pytest.raises(MalformedAnswerError):
        owt_answers.read_token(token_text(host))


@pytest.mark.parametrize("answer", [b"", b"%%%", b"e30=", b"bnVsbA==", "ü".encode(), token_text(None)])
def test_token_that_is_none(answer: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        owt_answers.read_token(answer)


answers = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["id", "_id", "user", "host", "secure", "eventbridgeip", "eventbridgeport"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(answers)
def test_every_answer_is_read_or_malformed(answer: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [
        owt_answers.read_bridges,
        owt_answers.read_ok,
        owt_answers.read_participants,
        owt_answers.read_token,
        lambda text: owt_answers.read_token(b64encode(text)),
        lambda text: owt_answers.read_room(text, "room-1"),
    ]
    for read in readers:
        try:
            read(answer)
        except MalformedAnswerError:
            continue


def test_deeply_nested_answer_is_malformed() -> None:
    with pytest.raises(MalformedAnswerError):
        owt_answers.read_participants(b"[" * 100_000)
