from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.keys import KINDS, KeyKind, new_key, parse_key


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_key_reads_back(kind: KeyKind) -> None:
    text = new_key(kind)
    key = parse_key(text)
    assert key is not None
    assert f"cw_{key.kind}_{key.id}_{key.secret}" == text
    assert key.kind == kind
    assert len(bytes.fromhex(key.secret)) == 32
    assert key.secret not in repr(key)
    assert new_key(kind) != text


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        new_key("root")  # type: ignore[arg-type] # that is the point


@given(st.text() | st.from_regex(r"cw_[a-z]+_[0-9a-f]{10,14}_[0-9a-f]{60,70}"))
def test_parsing_never_raises(text: str) -> None:
    key = parse_key(text)
    assert key is None or text == f"cw_{key.kind}_{key.id}_{key.secret}"


def test_near_misses_are_no_keys() -> None:
    text = new_key("operator")
    for miss in (
        text.upper(),
        text + "\n",
        " " + text,
        text[:-1],
        text + "0",
        text.replace("operator", "root"),
    ):
        assert parse_key(miss) is None
