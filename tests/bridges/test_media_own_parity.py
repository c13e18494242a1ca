from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.media.own.field import divide, multiply, scaled
from bridges.media.own.parity import protect, recover
from bridges.wire.own_media.datagram import MAX_SOURCES

ELEMENT = st.integers(0, 255)


@settings(deadline=None)
@given(ELEMENT, ELEMENT, ELEMENT)
def test_the_field_is_one(a: int, b: int, c: int) -> None:
    assert multiply(a, b) == multiply(b, a)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
    assert multiply(multiply(a, b), c) == multiply(a, multiply(b, c))
    assert multiply(a, 1) == a
    if b:
        assert multiply(divide(a, b), b) == a
    else:
        with pytest.raises(ZeroDivisionError):
            divide(a, b)


def test_its_polynomial_is_that_of_raid_6() -> None:
    assert multiply(0x80, 2) == 0x1D
    assert scaled(b"\x80\x01\x00", 2) == b"\x1d\x02\x00"


def test_the_first_row_is_the_xor() -> None:
    assert protect([b"\x01\x02", b"\x04"], 1) == [bytes([0 ^ 0, 2 ^ 1, 1 ^ 4, 2])]


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=24),
    st.integers(1, 8),
    st.data(),
)
def test_as_many_as_there_are_rows_come_back_whichever_they_are(
    datagrams: list[bytes], rows: int, data: st.DataObject
) -> None:
    places = list(range(len(datagrams)))
    lost = data.draw(st.permutations(places))[: data.draw(st.integers(0, min(rows, len(places))))]
    left = data.draw(st.permutations(range(rows)))[: max(len(lost), 1)]
    parity = protect(datagrams, rows)
    known = {place: datagrams[place] for place in places if place not in lost}
    again = recover(known, lost, {row: parity[row] for row in left}) if lost else []
    assert again == [datagrams[place] for place in lost]


@settings(deadline=None, max_examples=5)
@given(st.randoms(use_true_random=False))
def test_the_largest_group(random: object) -> None:
    draw = random.sample  # type: ignore[attr-defined] # Hypothesis calls it object
    datagrams = [bytes([place, place ^ 7]) for place in range(MAX_SOURCES)]
    lost = sorted(draw(range(MAX_SOURCES), 6))
    rows = sorted(draw(range(32), 6))
    parity = protect(datagrams, 32)
    known = {place: each for place, each in enumerate(datagrams) if place not in lost}
    assert recover(known, lost, {row: parity[row] for row in rows}) == [datagrams[place] for place in lost]


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=6), min_size=2, max_size=6),
    st.lists(st.binary(min_size=3, max_size=9), min_size=2, max_size=2),
)
def test_parity_of_something_else_gives_something_or_raises(
    datagrams: list[bytes], rows: list[bytes]
) -> None:
    known = dict(enumerate(datagrams[2:], 2))
    with suppress(ValueError):
        assert len(recover(known, [0, 1], dict(enumerate(rows)))) == 2
