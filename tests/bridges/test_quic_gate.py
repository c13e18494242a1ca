"""Who may begin a handshake, and whose certificate is believed: no network in here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.quic.certificate import Certificate
from bridges.quic.gate import Buckets, HandshakeGate, Verdict, origin_of
from bridges.quic.roundtrip import RoundTrip, patience
from bridges.quic.trust import Trust, fingerprints_of_environment
from bridges.quic.unverified import Unverified
from causeway.errors import ConfigError

ONE, OTHER = "192.0.2.1", "192.0.2.2"


def gate(*, always: bool = False, above: int = 8, rate: float = 2.0, burst: int = 3) -> HandshakeGate:
    return HandshakeGate(always_prove=always, prove_above=above, rate=rate, burst=burst)


def test_few_handshakes_are_begun_without_more_ado() -> None:
    assert [gate().unproven(ONE, under_way=n, now=0.0) for n in (0, 7)] == [Verdict.BEGIN] * 2


def test_many_under_way_or_the_operators_wish_ask_for_a_proof() -> None:
    assert gate().unproven(ONE, under_way=8, now=0.0) is Verdict.PROVE
    assert gate(always=True).unproven(ONE, under_way=0, now=0.0) is Verdict.PROVE


def test_whoever_pretends_to_be_somebody_costs_him_a_proof_and_nothing_else() -> None:
    guard = gate()
    verdicts = [guard.unproven(ONE, under_way=0, now=0.0) for _ in range(100)]
    assert verdicts == [Verdict.BEGIN] * 3 + [Verdict.PROVE] * 97
    assert guard.proven(ONE, now=0.0) is Verdict.BEGIN, "the true one has not lost a single handshake"
    assert guard.unproven(OTHER, under_way=0, now=0.0) is Verdict.BEGIN


def test_a_proven_address_has_its_rate_and_gets_it_back() -> None:
    guard = gate()
    assert [guard.proven(ONE, now=0.0) for _ in range(4)] == [Verdict.BEGIN] * 3 + [Verdict.IGNORE]
    assert [guard.proven(ONE, now=0.6) for _ in range(2)] == [Verdict.BEGIN, Verdict.IGNORE]
    assert [guard.proven(ONE, now=99.0) for _ in range(4)] == [Verdict.BEGIN] * 3 + [Verdict.IGNORE]


def test_a_site_of_ipv6_is_one_origin_and_ipv4_is_told_from_it() -> None:
    assert origin_of("2001:db8::1") == origin_of("2001:db8::ffff:2") != origin_of("2001:db8:0:1::1")
    assert origin_of("::ffff:192.0.2.1") == origin_of("192.0.2.1") == "192.0.2.1"
    assert origin_of("fe80::1%eth0") == origin_of("fe80::2")


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 5)), max_size=60))
def test_no_origin_gets_more_than_its_rate_and_there_are_never_too_many(
    steps: list[tuple[str, float]],
) -> None:
    buckets = Buckets(rate=2.0, burst=3, max_origins=5)
    now, taken = 0.0, dict.fromkeys("abcde", 0)
    for origin, later in steps:
        now += later
        taken[origin] += buckets.take(origin, now)
    assert all(count <= 3 + 2.0 * now for count in taken.values())
    assert len(buckets) <= 5


def test_forgotten_origins_are_those_unused_for_longest() -> None:
    buckets = Buckets(rate=0.001, burst=1, max_origins=2)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 1.0)
    assert not buckets.take("a", 2.0)
    assert buckets.take("c", 3.0)
    assert not buckets.take("a", 4.0)
    assert buckets.take("b", 5.0), "b was forgotten, and begins anew"


def test_clocks_that_step_back_give_nothing() -> None:
    buckets = Buckets(rate=1.0, burst=1)
    assert buckets.take("a", 10.0)
    assert not buckets.take("a", 1.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_strangers_are_counted_exactly(steps: list[tuple[int, bool]]) -> None:
    unverified: Unverified[int] = Unverified(most=5, most_of_one=3)
    held: list[int] = []
    for number, come in steps:
        host = f"192.0.2.{number % 2}"
        if come and number not in held:
            assert unverified.has_share_for(host) == (sum(other % 2 == number % 2 for other in held) < 3)
            assert unverified.in_the_way() == (held[0] if len(held) == 5 else None)
            if len(held) == 5:
                unverified.discard(held.pop(0))
            if unverified.has_share_for(host):
                unverified.add(number, host)
                held.append(number)
        elif not come:
            unverified.discard(number)
            held = [other for other in held if other != number]
        assert len(unverified) == len(held)


def test_a_living_peer_has_time_to_answer_by_how_far_it_is() -> None:
    assert patience(None) == 1.0
    assert patience(RoundTrip(0.0, 0.0)) == pytest.approx(0.2)
    assert patience(RoundTrip(0.1, 0.05)) == pytest.approx(0.6)
    assert patience(RoundTrip(3.0, 1.0)) == 1.0


def test_a_certificate_is_believed_by_one_of_the_fingerprints() -> None:
    ours, others = Certificate.self_signed("a"), Certificate.self_signed("b")
    pairs = ":".join(ours.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
    for known in ([ours.fingerprint], [pairs], [others.fingerprint, pairs]):
        assert Trust(known).believes(ours.certificate)
    assert not Trust([others.fingerprint]).believes(ours.certificate)
    assert not Trust([]).believes(ours.certificate)
    assert not Trust([ours.fingerprint]).believes(None)
    assert Trust(None).believes(None)


def test_fingerprints_of_owts_variable() -> None:
    one, two = "AB:" * 31 + "cd", "0f" * 32
    assert fingerprints_of_environment({}) == ()
    assert fingerprints_of_environment({"QUIC_SERVER_FINGERPRINTS": ""}) == ()
    assert fingerprints_of_environment({"QUIC_SERVER_FINGERPRINTS": f"{one}, {two},"}) == (one, two)
    for wrong in ("12:34", one + "0", "sha256 Fingerprint=" + one, "z" * 64):
        with pytest.raises(ConfigError, match="QUIC_SERVER_FINGERPRINTS"):
            fingerprints_of_environment({"QUIC_SERVER_FINGERPRINTS": wrong})
