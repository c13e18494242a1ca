from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.api import Load
from control.errors import InvalidRequestError, PreconditionFailedError
from control.http.etag import MAX_TAGS, IfMatch, tag_of

VIEW = {"labels": {"tier": "gold"}, "version": 3}
TAG = tag_of(VIEW)


def test_a_tag_is_strong_and_follows_the_representation() -> None:
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert tag_of({"version": 3, "labels": {"tier": "gold"}}) == TAG
    assert tag_of({**VIEW, "version": 4}) != TAG
    assert tag_of(Load(cpu=0.5)) == tag_of(Load(cpu=0.5)) != tag_of(Load())


@pytest.mark.parametrize("header", [None, "*", TAG, f'"x", {TAG}', f'W/"x" ,\t{TAG} ', f"{TAG},{TAG}"])
def test_the_change_is_made(header: str | None) -> None:
    IfMatch.parse(header).check(VIEW)


@pytest.mark.parametrize("header", ['"x"', f"W/{TAG}", '""', f'"{TAG[1:-1]}x"'])
def test_another_state_is_not_changed(header: str) -> None:
    with pytest.raises(PreconditionFailedError, match="changed"):
        IfMatch.parse(header).check(VIEW)


@pytest.mark.parametrize("header", ["*", TAG])
def test_what_is_missing_matches_nothing(header: str) -> None:
    with pytest.raises(PreconditionFailedError, match="nothing"):
        IfMatch.parse(header).check(None)


def test_without_the_header_what_is_missing_may_be_made() -> None:
    IfMatch.parse(None).check(None)


@pytest.mark.parametrize(
    "header",
    ["", " ", "x", "*, *", f"*, {TAG}", f"{TAG},", TAG[:-1], '"a\x01b"', ",".join([TAG] * (MAX_TAGS + 1))],
)
def test_headers_that_are_none(header: str) -> None:
    with pytest.raises(InvalidRequestError, match="If-Match"):
        IfMatch.parse(header)


@given(st.text())
def test_any_text_is_a_header_or_refused(header: str) -> None:
    try:
        IfMatch.parse(header)
    except InvalidRequestError:
        return
