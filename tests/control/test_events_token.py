"""Tokens of event streams: what is taken, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from causeway.api import EventsHeader
from causeway.jws import TokenRefusedError, compact, split
from control.keyring import Keyring
from control.registry.store import Store
from control.security.events_token import EventTokens
from control.security.signing import Grant
from control.security.vault import Vault
from control.token_settings import TokenSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

GRANT = Grant(cluster="c", incarnation="i", conference="standup", placement=1, user="u", role="r")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def keyring(engine: AsyncEngine) -> Keyring:
    ring = Keyring(Store(engine), Vault(b"k" * 32), TokenSettings())
    await ring.prepare()
    return ring


async def test_a_token_is_good_for_its_time(keyring: Keyring) -> None:
    clock = Clock()
    tokens = EventTokens(keyring, ttl=600, clock=clock)
    token = tokens.token("standup")
    claims = tokens.check(token)
    assert (claims.conference, claims.exp - claims.iat) == ("standup", 600)
    assert tokens.token("standup") == token
    assert tokens.token("other") != token
    clock.now += 61
    assert tokens.token("standup") != token
    clock.now += 540
    assert tokens.check(token).conference == "standup"
    clock.now += 20
    with pytest.raises(TokenRefusedError, match="too old"):
        tokens.check(token)


async def test_only_so_many_are_remembered(keyring: Keyring) -> None:
    tokens = EventTokens(keyring, ttl=600, capacity=2)
    first = tokens.token("a")
    tokens.token("b")
    tokens.token("c")
    assert tokens.token("a") != first


async def test_tokens_of_other_kinds_and_hands(keyring: Keyring) -> None:
    tokens = EventTokens(keyring, ttl=600)
    token = tokens.token("standup")
    key = keyring.active()
    stranger = Ed25519PrivateKey.generate()
    header = msgspec.json.encode(EventsHeader(kid=key.kid))
    body = msgspec.json.encode(tokens.check(token))
    other = msgspec.structs.replace(tokens.check(token), iss="somebody")
    head, payload, _ = split(token)
    for bad, why in (
        (keyring.sign(GRANT)[0], "not a token of events"),
        (compact(stranger, header, body), "signature"),
        (compact(stranger, msgspec.json.encode(EventsHeader(kid="none")), body), "unknown key"),
        (compact(key.private, header, msgspec.json.encode(other)), "issuer"),
        (compact(key.private, header, b"{}"), "claims"),
        (f"{head}.{payload}.", "not a token"),
        ("", "not a token"),
        ("a.b.c", "not a token"),
    ):
        with pytest.raises(TokenRefusedError, match=why):
            tokens.check(bad)


@given(st.text() | st.builds(".".join, st.lists(st.text(max_size=20), min_size=3, max_size=3)))
def test_any_text_is_refused_as_such(text: str) -> None:
    class NoKeys:
        def public(self, kid: str) -> None:
            del kid

    with pytest.raises(TokenRefusedError):
        EventTokens(cast("Keyring", NoKeys()), ttl=60).check(text)
