from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.drivers.base import CredentialsRefusedError
from control.drivers.mauth import MAuthClock, authorization, signature


def test_signature_is_base64_of_hex() -> None:
    # Computed with openssl: printf '1700000000000,0123456789abcdef' | openssl dgst -sha256 -hmac key
    expected_hex = "d5b1a3da9d5e1ada6fafce1c67792e3c492374decd6dd1ec92d5d05e2c410943"
    signed = signature("key", timestamp=1700000000000, cnonce="0123456789abcdef")
    assert b64decode(signed).decode() == expected_hex


def test_header_has_every_field_unquoted() -> None:
    header = authorization("s-1", "key", timestamp=1700000000000, cnonce="00ff")
    signed = signature("key", timestamp=1700000000000, cnonce="00ff")
    assert header == (
        "MAuth realm=http://marte3.dit.upm.es,mauth_signature_method=HMAC_SHA256,mauth_serviceid=s-1,"
        f"mauth_cnonce=00ff,mauth_timestamp=1700000000000,mauth_signature={signed}"
    )


def test_nonces_differ() -> None:
    assert authorization("s", "k", timestamp=1) != authorization("s", "k", timestamp=1)


@pytest.mark.parametrize("service_id", ["", "a,b", "a=b", "a\r\nX: y", "a b", "ü"])
def test_service_id_that_the_header_cannot_carry(service_id: str) -> None:
    with pytest.raises(CredentialsRefusedError, match="service id"):
        authorization(service_id, "key", timestamp=1)


@given(st.lists(st.tuples(st.floats(-5000, 5000), st.booleans()), max_size=60))
def test_clock_never_goes_back_and_never_leads_by_much(events: list[tuple[float, bool]]) -> None:
    now = 1_700_000_000.0
    clock = MAuthClock(step=1000, max_lead=10_000, now=lambda: now)
    last = 0
    furthest = 0.0
    for elapsed, refused in events:
        now += elapsed
        furthest = max(furthest, now * 1000)
        stamp = clock.stamp()
        assert stamp >= last
        assert stamp % 1000 == 0
        assert stamp <= furthest + 10_000
        last = stamp
        if refused:
            clock.move_on(stamp)


def test_many_refusals_of_one_timestamp_move_the_clock_once() -> None:
    clock = MAuthClock(now=lambda: 1000.0)
    stamp = clock.stamp()
    for _ in range(20):
        clock.move_on(stamp)
    assert clock.stamp() == stamp + 1000
