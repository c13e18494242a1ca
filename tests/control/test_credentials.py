from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, update

from causeway.errors import ConfigError
from causeway.keys import KINDS, KeyKind, new_key, parse_key
from control.errors import UnauthenticatedError
from control.registry.store import Store
from control.registry.tables import credentials
from control.security.credentials import Authenticator, prepare_keys
from control.settings import KeySettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def stored(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return (await connection.scalars(select(func.count()).select_from(credentials))).one()


async def test_the_first_start_makes_one_of_each_kind_once(engine: AsyncEngine) -> None:
    store = Store(engine)
    made = await asyncio.gather(*(prepare_keys(store, KeySettings()) for _ in range(5)))
    [texts] = [each for each in made if each]
    keys = [key for text in texts if (key := parse_key(text))]
    assert tuple(key.kind for key in keys) == KINDS
    assert await stored(engine) == 3
    authenticator = Authenticator(store)
    for text, kind in zip(texts, KINDS, strict=True):
        assert (await authenticator.authenticate(f"Bearer {text}")).kind == kind


async def test_uses_are_noted_together_and_not_one_by_one(engine: AsyncEngine) -> None:
    store = Store(engine)
    texts = await prepare_keys(store, KeySettings())
    authenticator = Authenticator(store)
    for _ in range(3):
        await authenticator.authenticate(f"Bearer {texts[0]}")
    used = select(credentials.c.id).where(credentials.c.last_used_at.is_not(None))
    async with engine.connect() as connection:
        assert (await connection.scalars(used)).all() == []
    await authenticator.note_use_now()
    key = parse_key(texts[0])
    assert key is not None
    async with engine.connect() as connection:
        assert (await connection.scalars(used)).all() == [key.id]


async def test_configured_keys_are_ensured_and_nothing_is_made(engine: AsyncEngine) -> None:
    settings = KeySettings(operator=new_key("operator"))
    for _ in range(2):
        assert await prepare_keys(Store(engine), settings) == []
    assert await stored(engine) == 1
    assert await prepare_keys(Store(engine), KeySettings()) == []


async def test_configured_keys_that_cannot_be(engine: AsyncEngine) -> None:
    store = Store(engine)
    good = new_key("operator")
    with pytest.raises(ConfigError, match="not a key of this kind"):
        await prepare_keys(store, KeySettings(application=good))
    with pytest.raises(ConfigError, match="not a key of this kind") as caught:
        await prepare_keys(store, KeySettings(operator="secret"))
    assert "secret" not in str(caught.value).replace("<secret>", "")
    await prepare_keys(store, KeySettings(operator=good))
    with pytest.raises(ConfigError, match="another or to a revoked key"):
        await prepare_keys(store, KeySettings(operator=good[:-4] + "0000"))
    async with engine.begin() as connection:
        await connection.execute(update(credentials).values(revoked_at=func.now()))
    with pytest.raises(ConfigError, match="another or to a revoked key"):
        await prepare_keys(store, KeySettings(operator=good))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer x",
        "Basic {key}",
        "Bearer {other}",
        "{key}",
        "Bearer {changed}",
        "Bearer {kind}",
    ],
)
async def test_what_is_no_valid_key(engine: AsyncEngine, header: str | None) -> None:
    key = new_key("operator")
    await prepare_keys(Store(engine), KeySettings(operator=key))
    kinds: tuple[KeyKind, ...] = ("operator", "application")
    text = header and header.format(
        key=key,
        other=new_key("operator"),
        changed=key[:-4] + "0000",
        kind=key.replace(kinds[0], kinds[1]),
    )
    with pytest.raises(UnauthenticatedError):
        await Authenticator(Store(engine)).authenticate(text)


async def test_a_checked_key_is_remembered_for_a_while(engine: AsyncEngine) -> None:
    now = 0.0
    keys = [new_key("application") for _ in range(3)]
    for key in keys:
        await prepare_keys(Store(engine), KeySettings(application=key))
    authenticator = Authenticator(Store(engine), lifetime=5, capacity=2, clock=lambda: now)
    await authenticator.authenticate(f"bearer {keys[0]}")
    async with engine.begin() as connection:
        await connection.execute(update(credentials).values(revoked_at=func.now()))
    now = 4.9
    await authenticator.authenticate(f"Bearer {keys[0]}")
    now = 5.1
    with pytest.raises(UnauthenticatedError):
        await authenticator.authenticate(f"Bearer {keys[0]}")
    assert len(authenticator._known) == 0


async def test_memory_is_bounded(engine: AsyncEngine) -> None:
    authenticator = Authenticator(Store(engine), capacity=2)
    for _ in range(4):
        key = new_key("application")
        await prepare_keys(Store(engine), KeySettings(application=key))
        await authenticator.authenticate(f"Bearer {key}")
    assert len(authenticator._known) == 2
