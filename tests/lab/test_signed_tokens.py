from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from causeway.api.tokens import JoinClaims
from causeway.join_token import sign
from lab.room_options import RoomOptions
from lab.room_rules import RoomError
from lab.rooms import Rooms
from lab.signed_tokens import SignedTokens
from lab.tokens import TokenError

KEY = Ed25519PrivateKey.generate()
NOW = 1_800_000_000
CLAIMS = JoinClaims(
    iss="causeway",
    aud="c1",
    sub="p1",
    jti="j1",
    iat=NOW,
    exp=NOW + 300,
    conference="standup",
    role="presenter",
    user="ada",
    incarnation="i1",
    placement=7,
)


def token(claims: JoinClaims = CLAIMS) -> str:
    return sign(KEY, kid="k1", claims=claims)


class Cluster:
    """Rooms that take signed tokens, with a clock and a start that can be changed."""

    def __init__(self, *, max_shown: int = 100, placement: int | None = 7) -> None:
        self.now = float(NOW)
        self.incarnation = "i1"
        self.missing: list[tuple[str, int]] = []
        self.rooms = Rooms(cluster="c1", worker_id="w")
        self.rooms.create("standup", RoomOptions(id="standup", placement_epoch=placement))
        self.tokens = SignedTokens(
            rooms=self.rooms,
            keys=lambda: {"k1": KEY.public_key()},
            incarnation=lambda: self.incarnation,
            issuer="causeway",
            clock=lambda: self.now,
            leeway=10.0,
            max_shown=max_shown,
            missing=lambda room, placement: self.missing.append((room, placement)),
        )


def test_a_token_is_taken_once() -> None:
    cluster = Cluster()
    admission = cluster.tokens.redeem(token())
    assert (admission.room, admission.user, admission.role) == ("standup", "ada", "presenter")
    assert admission.participant == "p1"
    with pytest.raises(TokenError, match="shown before"):
        cluster.tokens.redeem(token())
    cluster.now = NOW + 309.0  # within the leeway it is still remembered
    with pytest.raises(TokenError, match="shown before"):
        cluster.tokens.redeem(token())
    cluster.now = NOW + 311.0
    with pytest.raises(TokenError, match="too old"):
        cluster.tokens.redeem(token())


def test_a_token_of_another_life_is_refused() -> None:
    cluster = Cluster()
    for placement in (6, 8):
        with pytest.raises(TokenError, match="another life"):
            cluster.tokens.redeem(token(replace(CLAIMS, placement=placement)))
    cluster.incarnation = "i2"
    with pytest.raises(TokenError, match="earlier start"):
        cluster.tokens.redeem(token())
    assert len(cluster.tokens) == 0


def test_a_room_that_control_did_not_make_has_no_life_to_compare() -> None:
    cluster = Cluster(placement=None)
    assert cluster.tokens.redeem(token()).room == "standup"


def test_without_the_room_it_is_said_so_and_the_token_stays_good() -> None:
    cluster = Cluster()
    cluster.rooms.delete("standup")
    with pytest.raises(RoomError, match="no such room"):
        cluster.tokens.redeem(token())
    cluster.rooms.create("standup", RoomOptions(id="standup", placement_epoch=7))
    assert cluster.tokens.redeem(token()).room == "standup"


def test_memory_is_bounded_and_nothing_is_taken_twice_for_it() -> None:
    cluster = Cluster(max_shown=2)
    for number in range(2):
        cluster.tokens.redeem(token(replace(CLAIMS, jti=f"j{number}")))
    with pytest.raises(RoomError, match="at once"):
        cluster.tokens.redeem(token(replace(CLAIMS, jti="j3")))
    with pytest.raises(TokenError, match="shown before"):
        cluster.tokens.redeem(token(replace(CLAIMS, jti="j0")))
    cluster.now = NOW + 400.0
    fresh = replace(CLAIMS, jti="j3", iat=NOW + 400, exp=NOW + 700)
    assert cluster.tokens.redeem(token(fresh)).participant == "p1"
    assert len(cluster.tokens) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=40))
def test_no_order_of_lifetimes_lets_a_token_in_twice(steps: list[tuple[int, int]]) -> None:
    cluster = Cluster(max_shown=1000)
    taken: set[str] = set()
    for number, wait in steps:
        cluster.now += wait
        claims = replace(CLAIMS, jti=f"j{number}", exp=NOW + 50 * (number + 1))
        try:
            cluster.tokens.redeem(token(claims))
        except TokenError:
            continue
        assert claims.jti not in taken
        taken.add(claims.jti)
    assert len(cluster.tokens) <= len(taken)


# --- rooms and their placements ---------------------------------------------------------------


def test_a_later_placement_finds_a_new_room() -> None:
    cluster = Cluster()
    cluster.rooms.join("standup", user="ada", role="presenter", portal="p")
    first = cluster.rooms.get_running("standup")
    options = RoomOptions(id="standup", placement_epoch=7)
    assert cluster.rooms.create("standup", options).options.placement_epoch == 7
    assert cluster.rooms.get_running("standup") is first
    cluster.rooms.create("standup", RoomOptions(id="standup", placement_epoch=9))
    assert cluster.rooms.get_running("standup") is None
    with pytest.raises(RoomError, match="later placement"):
        cluster.rooms.create("standup", options)
    assert cluster.rooms.record("standup").options.placement_epoch == 9


def test_changing_a_room_leaves_its_placement() -> None:
    cluster = Cluster()
    cluster.rooms.update("standup", None, RoomOptions(participant_limit=3))
    options = cluster.rooms.record("standup").options
    assert (options.placement_epoch, options.participant_limit) == (7, 3)


def test_a_room_that_control_takes_to_be_there_and_is_not_is_said_to_be_missing() -> None:
    cluster = Cluster()
    for placement, said in ((6, []), (8, [("standup", 8)])):  # of an earlier one control has a newer room
        with pytest.raises(TokenError):
            cluster.tokens.redeem(token(replace(CLAIMS, placement=placement)))
        assert cluster.missing == said
    cluster.rooms.delete("standup")
    with pytest.raises(RoomError, match="no such room"):
        cluster.tokens.redeem(token())
    assert cluster.missing == [("standup", 8), ("standup", 7)]
    for forged in (token(replace(CLAIMS, aud="c2")), token()[:-4] + "AAAA"):
        with pytest.raises(TokenError):
            cluster.tokens.redeem(forged)
    assert len(cluster.missing) == 2
