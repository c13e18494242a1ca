from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import httpx2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from causeway.api.tokens import JWKS_PATH, JoinClaims, Jwk, JwkSet
from causeway.join_token import sign
from control.security.signing import public_text
from lab.key_source import KeySource
from lab.settings import KeySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = {f"k{number}": Ed25519PrivateKey.generate() for number in range(3)}


def token(kid: str) -> str:
    claims = JoinClaims(
        iss="causeway",
        aud="c1",
        sub="p1",
        jti="j1",
        iat=0,
        exp=300,
        conference="standup",
        role="presenter",
        user="ada",
        incarnation="i1",
        placement=7,
    )
    return sign(KEYS.get(kid, KEYS["k0"]), kid=kid, claims=claims)


class Control:
    """Publishes keys, or whatever it is told to answer."""

    def __init__(self) -> None:
        self.kids = ["k0"]
        self.asked = 0
        self.status = 200
        self.body: bytes | None = None
        self.hang = False
        self.away = False

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == JWKS_PATH
        assert "authorization" not in request.headers
        self.asked += 1
        if self.away:
            raise httpx2.ConnectError("connection refused")
        if self.hang:
            await asyncio.Event().wait()
        published = JwkSet(keys=[Jwk(kid=kid, x=public_text(KEYS[kid])) for kid in self.kids])
        body = msgspec.json.encode(published) if self.body is None else self.body
        return httpx2.Response(self.status, content=body)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def key_source(control: Control, clock: Clock, **settings: float) -> AsyncIterator[KeySource]:
    async with KeySource(
        "http://control.test/",
        settings=KeySettings(**settings),  # type: ignore[arg-type] # all are numbers
        clock=clock,
        transport=httpx2.MockTransport(control.answer),
    ) as source:
        yield source


async def test_a_key_is_fetched_when_a_token_needs_it_and_then_known() -> None:
    control = Control()
    async with key_source(control, Clock()) as source:
        assert source.keys == {}
        await asyncio.gather(*(source.look_up(token("k0")) for _ in range(20)))
        assert control.asked == 1
        control.away = True
        await source.look_up(token("k0"))
        assert control.asked == 1
        assert set(source.keys) == {"k0"}


async def test_invented_keys_make_nobody_busy() -> None:
    control, clock = Control(), Clock()
    async with key_source(control, clock, min_interval=2.0) as source:
        for number in range(50):
            await source.look_up(token(f"invented-{number}"))
        assert control.asked == 1
        control.kids = ["k0", "k1"]
        await source.look_up(token("k1"))
        assert control.asked == 1
        clock.now += 2.0
        await source.look_up(token("k1"))
        assert control.asked == 2
        assert set(source.keys) == {"k0", "k1"}
        for nonsense in ("", "a.b.c", "not a token"):
            clock.now += 2.0
            await source.look_up(nonsense)
        assert control.asked == 2


@pytest.mark.parametrize(
    "trouble",
    [
        {"away": True},
        {"status": 503},
        {"status": 302},
        {"body": b"<html>"},
        {"body": b'{"keys":["' + b"x" * 70_000 + b'"]}'},
        {"hang": True},
    ],
)
async def test_trouble_leaves_what_is_known(trouble: dict[str, object]) -> None:
    control, clock = Control(), Clock()
    async with key_source(control, clock, timeout=0.2) as source:
        await source.look_up(token("k0"))
        for name, value in trouble.items():
            setattr(control, name, value)
        clock.now += 10
        await source.look_up(token("k1"))
        assert control.asked == 2
        assert set(source.keys) == {"k0"}


async def test_keys_are_refreshed_and_withdrawn_ones_forgotten() -> None:
    control = Control()
    async with key_source(control, Clock(), min_interval=0.05, refresh_interval=0.05) as source:
        control.away = True
        running = asyncio.create_task(source.run())
        try:
            for kids in (["k0", "k1"], ["k2"]):
                control.away, control.kids = False, kids
                async with asyncio.timeout(5):
                    while set(source.keys) != set(kids):  # noqa: ASYNC110 - nobody gives notice
                        await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
