from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.impairment.core import Bottleneck, Bursts, Hole, Profile, Rebinding
from tests.impairment.spec import HELP, SpecError, parse_profile, parse_rebinding


def test_every_word_is_understood() -> None:
    text = (
        "delay=50 jitter=5 in-order loss=1,bursts=2:8:50 reorder=3:20 duplicate=4 mtu=1280 "
        "rate=2:250:3000 hole=3:0.5:20 hole=1:2"
    )
    assert parse_profile(text) == Profile(
        delay=0.05,
        jitter=0.005,
        in_order=True,
        loss=0.01,
        bursts=Bursts(share=0.02, length=8, density=0.5),
        reorder=0.03,
        reorder_delay=0.02,
        duplicate=0.04,
        mtu=1280,
        bottleneck=Bottleneck(rate=2e6, queue=0.25, burst=3000),
        holes=(Hole(begin=3, length=0.5, every=20), Hole(begin=1, length=2)),
    )


def test_what_is_not_said_stays() -> None:
    base = parse_profile("delay=50 rate=2 hole=1:1")
    assert parse_profile("", base) == base
    changed = parse_profile("rate=4 hole=5:1", base)
    assert changed.delay == base.delay
    assert changed.bottleneck == Bottleneck(rate=4e6, queue=0.1)
    assert [hole.begin for hole in changed.holes] == [1, 5]


def test_rebinding() -> None:
    assert parse_rebinding("10") == Rebinding(every=10)
    assert parse_rebinding("10:3") == Rebinding(every=10, begin=3)


@pytest.mark.parametrize(
    "text",
    [
        "delays=5",
        "delay",
        "delay=",
        "delay=x",
        "loss=101",
        "in-order=1",
        "hole=1",
        "hole=1:2:3:4",
        "rate=0",
        "=",
    ],
)
def test_the_word_that_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(SpecError, match=f"'{text}': "):
        parse_profile(f"delay=1 {text}")


@given(text=st.text(st.sampled_from("delay=jitr:0123456789.-nfh ,lossburt%e"), max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    for parse in (parse_profile, parse_rebinding):
        try:
            parse(text)
        except SpecError:
            continue


def test_every_word_is_explained() -> None:
    for word in (
        "delay",
        "jitter",
        "in-order",
        "loss",
        "bursts",
        "reorder",
        "duplicate",
        "mtu",
        "rate",
        "hole",
    ):
        assert f"\n  {word}" in HELP
