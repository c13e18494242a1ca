from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.join_token import verify
from control.security.signing import (
    LONGEST_TOKEN,
    Grant,
    KeyRing,
    NoSigningKeyError,
    SigningKey,
    new_private_key,
    public_text,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
GRANT = Grant(
    cluster="eu-1", incarnation="i1", conference="standup", placement=3, user="ada", role="presenter"
)
PRIVATE = [new_private_key() for _ in range(6)]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def key(number: int, *, active_from: float, created: float | None = None) -> SigningKey:
    return SigningKey(
        kid=f"k{number}",
        public=public_text(PRIVATE[number]),
        created_at=at(active_from if created is None else created),
        active_from=at(active_from),
        private=PRIVATE[number],
    )


def states(ring: KeyRing, now: float) -> dict[str, str]:
    return {one.kid: state for one, state in ring.published(at(now))}


def test_a_key_is_published_then_signs_then_is_kept_then_goes() -> None:
    ring = KeyRing([key(0, active_from=0), key(1, active_from=100, created=40)])
    hour = LONGEST_TOKEN.total_seconds()
    assert states(ring, 50) == {"k0": "active", "k1": "next"}
    assert ring.active(at(99)).kid == "k0"
    assert ring.active(at(100)).kid == "k1"
    assert states(ring, 100) == {"k0": "retired", "k1": "active"}
    assert states(ring, 100 + hour + 60) == {"k0": "retired", "k1": "active"}
    assert states(ring, 100 + hour + 600) == {"k1": "active"}
    assert ring.over(at(100 + hour + 600)) == ["k0"]
    assert ring.over(at(100)) == []


def test_without_a_key_nothing_is_signed() -> None:
    for ring in (KeyRing([]), KeyRing([key(0, active_from=10)])):
        with pytest.raises(NoSigningKeyError):
            ring.sign(GRANT, issuer="us", now=at(5), ttl=timedelta(minutes=5))


def test_a_token_says_what_was_granted() -> None:
    ring = KeyRing([key(0, active_from=0)])
    text, claims = ring.sign(GRANT, issuer="us", now=at(5), ttl=timedelta(minutes=5))
    keys = {"k0": PRIVATE[0].public_key()}
    read = verify(text, keys, issuer="us", cluster="eu-1", incarnation="i1", now=at(6).timestamp())
    assert read == claims
    assert (claims.conference, claims.placement, claims.user, claims.role) == (
        "standup",
        3,
        "ada",
        "presenter",
    )
    assert claims.exp - claims.iat == 300
    again = ring.sign(GRANT, issuer="us", now=at(5), ttl=timedelta(days=5))[1]
    assert again.exp - again.iat == LONGEST_TOKEN.total_seconds()
    assert again.jti != claims.jti
    assert again.sub != claims.sub


def test_private_keys_are_not_shown() -> None:
    assert "private" not in repr(key(0, active_from=0))


TIMES = st.lists(st.integers(0, 10_000), min_size=1, max_size=len(PRIVATE))


@given(TIMES, st.integers(0, 20_000), st.integers(0, 4000))
def test_whatever_was_signed_can_be_checked_until_it_runs_out(
    actives: list[int], signed: int, later: int
) -> None:
    ring = KeyRing([key(n, active_from=t, created=max(0, t - 60)) for n, t in enumerate(actives)])
    if signed < min(actives):
        return
    ttl = timedelta(seconds=3600)
    signer = ring.active(at(signed))
    later = min(later, 3600)
    assert signer.kid in {jwk.kid for jwk in ring.jwks(at(signed + later))}
    assert signer.kid not in ring.over(at(signed + later))
    assert ring.sign(GRANT, issuer="us", now=at(signed), ttl=ttl)[0]


@given(TIMES, st.integers(0, 20_000))
def test_at_any_time_one_key_is_active_and_the_order_of_rows_does_not_matter(
    actives: list[int], now: int
) -> None:
    keys = [key(n, active_from=t) for n, t in enumerate(actives)]
    forwards, backwards = KeyRing(keys), KeyRing(reversed(keys))
    assert forwards.published(at(now)) == backwards.published(at(now))
    active = [one for one, state in forwards.published(at(now)) if state == "active"]
    assert len(active) == (now >= min(actives))
    if active:
        assert forwards.active(at(now)) == active[0]
