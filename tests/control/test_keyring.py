from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import delete, func, select, update
from structlog.testing import capture_logs

from causeway.api.tokens import JWKS_PATH, JwkSet, SigningKeyList
from causeway.join_token import kid_of, read_keys, verify
from control.errors import RateLimitedError
from control.keyring import Keyring
from control.registry.store import Store
from control.registry.tables import signing_keys
from control.security.signing import Grant, NoSigningKeyError
from control.security.vault import KEY_BYTES, SealError, Vault
from control.token_settings import TokenSettings
from tests.control.service import running

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

GRANT = Grant(cluster="eu-1", incarnation="i1", conference="standup", placement=3, user="ada", role="viewer")
VAULT = Vault(bytes(range(KEY_BYTES)))


def keyring(engine: AsyncEngine, *, vault: Vault = VAULT, **settings: float) -> Keyring:
    return Keyring(Store(engine), vault, TokenSettings(**settings))  # type: ignore[arg-type] # all are numbers


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(signing_keys))).scalar_one())


async def test_replicas_that_start_at_once_have_one_key(engine: AsyncEngine) -> None:
    rings = [keyring(engine) for _ in range(4)]
    with pytest.raises(NoSigningKeyError):
        rings[0].sign(GRANT)
    await asyncio.gather(*(ring.prepare() for ring in rings))
    assert await count(engine) == 1
    tokens = [ring.sign(GRANT)[0] for ring in rings]
    assert len({kid_of(token) for token in tokens}) == 1
    keys = read_keys(msgspec.json.encode(rings[0].jwks()))
    now = datetime.now(UTC).timestamp()
    for token in tokens:
        claims = verify(token, keys, issuer="causeway", cluster="eu-1", incarnation="i1", now=now)
        assert (claims.conference, claims.role) == ("standup", "viewer")


async def test_a_new_key_signs_when_every_replica_has_it(engine: AsyncEngine) -> None:
    here, there = keyring(engine, lead=60), keyring(engine, lead=60)
    await here.prepare()
    await there.prepare()
    old = kid_of(here.sign(GRANT)[0])
    shown = await here.rotate(actor="operator:1")
    new = next(key.kid for key in shown.keys if key.state == "next")
    assert {key.kid: key.state for key in shown.keys} == {old: "active", new: "next"}
    assert kid_of(here.sign(GRANT)[0]) == old
    await there.refresh()
    assert {key.kid for key in there.jwks().keys} == {old, new}

    async with engine.begin() as connection:  # the lead has passed
        await connection.execute(
            update(signing_keys).where(signing_keys.c.kid == new).values(active_from=func.now())
        )
    await here.refresh()
    assert kid_of(here.sign(GRANT)[0]) == new
    assert {key.kid: key.state for key in here.shown().keys} == {old: "retired", new: "active"}
    # The other one still signs with the old key, which is still published.
    assert kid_of(there.sign(GRANT)[0]) in {key.kid for key in here.jwks().keys}


async def test_what_is_over_is_forgotten_with_the_next_rotation(engine: AsyncEngine) -> None:
    ring = keyring(engine)
    await ring.prepare()
    old = kid_of(ring.sign(GRANT)[0])
    await ring.rotate(actor="operator:1")
    long_ago = func.now() - func.make_interval(0, 0, 0, 2)
    async with engine.begin() as connection:
        await connection.execute(update(signing_keys).values(active_from=long_ago))
        await connection.execute(
            update(signing_keys)
            .where(signing_keys.c.kid == old)
            .values(active_from=func.now() - func.make_interval(0, 0, 0, 3))
        )
    await ring.rotate(actor="operator:1")
    assert await count(engine) == 2
    assert old not in {key.kid for key in ring.jwks().keys}


async def test_no_more_keys_are_made_than_clusters_take(engine: AsyncEngine) -> None:
    ring = keyring(engine)
    await ring.prepare()
    for _ in range(31):
        await ring.rotate(actor="operator:1")
    with pytest.raises(RateLimitedError):
        await ring.rotate(actor="operator:1")
    assert await count(engine) == 32
    assert len(read_keys(msgspec.json.encode(ring.jwks()))) == 32


async def test_keys_are_sealed_and_open_with_the_master_key_only(engine: AsyncEngine) -> None:
    ring = keyring(engine)
    await ring.prepare()
    with pytest.raises(SealError, match="master_key"):
        await keyring(engine, vault=Vault(bytes(KEY_BYTES))).prepare()
    assert await count(engine) == 1
    async with engine.begin() as connection:  # a key copied into another row does not open either
        await connection.execute(update(signing_keys).values(kid="another"))
    with pytest.raises(SealError):
        await ring.refresh()
    assert ring.sign(GRANT)[0], "what it had stays"


async def test_refreshing_goes_on_whatever_happens(engine: AsyncEngine) -> None:
    ring = keyring(engine, refresh_interval=0.1)
    await ring.prepare()
    first = kid_of(ring.sign(GRANT)[0])
    with capture_logs() as logs:
        task = asyncio.create_task(ring.run())
        async with engine.begin() as connection:
            await connection.execute(update(signing_keys).values(private=b"broken"))
        async with asyncio.timeout(10):
            while not logs:  # noqa: ASYNC110 - nobody gives notice
                await asyncio.sleep(0.02)
    assert logs[0]["event"] == "signing_keys.not_refreshed"
    try:
        async with engine.begin() as connection:
            await connection.execute(delete(signing_keys))
        other = keyring(engine)
        await other.prepare()
        async with asyncio.timeout(10):
            while kid_of(ring.sign(GRANT)[0]) == first:  # noqa: ASYNC110 - nobody gives notice
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


# --- over HTTP --------------------------------------------------------------------------------


async def test_everybody_may_have_the_public_keys(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        answer = await service.nobody.get(JWKS_PATH)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=30"
        assert answer.headers["content-type"].startswith("application/json")
        (key,) = msgspec.json.decode(answer.content, type=JwkSet).keys
        assert set(answer.json()["keys"][0]) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert set(read_keys(answer.content)) == {key.kid}


async def test_operators_rotate(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        for client in (service.application, service.enrolment):
            assert (await client.post("/v1/signing-keys")).status_code == 403
        assert (await service.nobody.get("/v1/signing-keys")).status_code == 401
        before = msgspec.json.decode(
            (await service.operator.get("/v1/signing-keys")).content, type=SigningKeyList
        )
        assert [key.state for key in before.keys] == ["active"]
        answer = await service.operator.post("/v1/signing-keys")
        assert answer.status_code == 201, answer.text
        after = msgspec.json.decode(answer.content, type=SigningKeyList)
        assert [key.state for key in after.keys] == ["next", "active"]
        assert len((await service.nobody.get(JWKS_PATH)).json()["keys"]) == 2
        audit = (await service.operator.get("/v1/audit?subject=signing-keys")).json()["entries"]
        assert [(entry["action"], entry["after"]) for entry in audit] == [
            ("rotated", {"kid": after.keys[0].kid})
        ]
        assert audit[0]["actor"].startswith("operator:")
