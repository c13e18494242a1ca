"""Server-sent events, however they are cut, and whatever else arrives."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.client.sse import EventParser, Message
from causeway.errors import UnavailableError

WORDS = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), min_size=1)


def fed(data: bytes, cuts: list[int]) -> list[Message]:
    parser, found = EventParser(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        found += parser.feed(data[begin:end])
    return found


@given(
    st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3), WORDS), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_every_message_arrives_whole(
    sent: list[tuple[str, list[str], str]], end: str, cuts: list[int]
) -> None:
    lines: list[str] = [": hello", ""]
    for name, data, id_ in sent:
        lines += [f"event: {name}", *(f"data: {line}" for line in data), f"id: {id_}", "retry: 5", ":", ""]
    found = fed(("".join(line + end for line in lines)).encode(), cuts)
    assert found == [Message(name, "\n".join(data), id_) for name, data, id_ in sent]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_anything_gives_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert fed(data, cuts) == fed(data, []) == fed(data, list(range(len(data))))


def test_details_of_the_format() -> None:
    parser = EventParser()
    assert parser.feed(b"data:a\n\ndata\n\nevent: x\n\nid: 7\n\ndata:  b\n\n") == [
        Message("message", "a", ""),
        Message("message", "", ""),
        Message("message", " b", "7"),
    ]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 200, b"data: xxxx\n" * 40])
def test_what_is_too_large_is_not_kept(data: bytes) -> None:
    parser = EventParser(limit=100)
    with pytest.raises(UnavailableError):
        parser.feed(data)
