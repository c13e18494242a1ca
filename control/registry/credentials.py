"""Access keys as the registry keeps them: what operators see, and the hash of the secret, nothing else.

A revocation is announced (REVOKED), so that every replica forgets the key at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import func, literal, null, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from causeway.api import KeyList, KeyView
from causeway.keys import SCOPES
from control.errors import KeyUnknownError
from control.registry import audit
from control.registry.paging import Place
from control.registry.tables import credentials

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.keys import KeyKind, Scope

__all__ = [
    "LOCAL",
    "REVOKED",
    "StoredKey",
    "create",
    "create_first",
    "ensure",
    "find",
    "list_some",
    "revoke",
    "show",
    "used",
]

REVOKED: Final = "causeway_key"
"""NOTIFY channel; the payload is the id of a key that was revoked."""

LOCAL: Final = "local"
"""The actor of what is done on the database itself, by `causeway key create --local`."""

_VIEW: Final = [
    credentials.c[name]
    for name in ("id", "kind", "name", "scopes", "created_at", "created_by", "last_used_at", "revoked_at")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A valid key."""

    id: str
    kind: KeyKind
    scopes: frozenset[Scope]
    """What an application key may do; empty for the other kinds."""
    secret_hash: bytes = field(repr=False)


async def find(connection: AsyncConnection, key: str) -> StoredKey | None:
    """Return the key of this id, None if there is none or it was revoked."""
    row = (
        await connection.execute(
            select(credentials.c.kind, credentials.c.scopes, credentials.c.secret_hash).where(
                credentials.c.id == key, credentials.c.revoked_at.is_(None)
            )
        )
    ).one_or_none()
    if row is None:
        return None
    kind = cast("KeyKind", row.kind)
    return StoredKey(
        id=key, kind=kind, scopes=frozenset(_scopes(kind, row.scopes)), secret_hash=row.secret_hash
    )


async def create_first(connection: AsyncConnection, keys: Sequence[tuple[str, KeyKind, bytes]]) -> bool:
    """Store these (id, kind, hash) if there never was any key; of processes that start at once, one does."""
    await connection.execute(text("LOCK TABLE credentials IN SHARE ROW EXCLUSIVE MODE"))
    if (await connection.scalars(select(credentials.c.id).limit(1))).one_or_none() is not None:
        return False
    await connection.execute(
        insert(credentials),
        [
            {"id": key, "kind": kind, "secret_hash": secret_hash, "name": "first start"}
            for key, kind, secret_hash in keys
        ],
    )
    return True


async def ensure(connection: AsyncConnection, key: str, *, kind: KeyKind, secret_hash: bytes) -> bool:
    """Store the key unless its id is taken; return whether the id now is this very key, and not revoked."""
    row = insert(credentials).values(id=key, kind=kind, secret_hash=secret_hash, name="settings")
    await connection.execute(row.on_conflict_do_nothing())
    stored = await find(connection, key)
    return stored is not None and (stored.kind, stored.secret_hash) == (kind, secret_hash)


async def create(
    connection: AsyncConnection,
    key: str,
    *,
    kind: KeyKind,
    secret_hash: bytes,
    name: str,
    scopes: Collection[Scope] | None,
    by: str | None,
) -> KeyView:
    """Store a new key; `by`: id of the key that asks for it."""
    row = insert(credentials).values(
        id=key,
        kind=kind,
        secret_hash=secret_hash,
        name=name,
        scopes=null() if scopes is None else sorted(set(scopes)),
        created_by=by,
    )
    view = _view((await connection.execute(row.returning(*_VIEW))).one())
    after = {"kind": kind, "name": name, "scopes": view.scopes}
    await audit.note(connection, actor=_actor(by), subject=f"key:{key}", action="created", after=after)
    return view


async def show(connection: AsyncConnection, key: str) -> KeyView:
    """Return the key, revoked or not; raises KeyUnknownError."""
    row = (await connection.execute(select(*_VIEW).where(credentials.c.id == key))).one_or_none()
    if row is None:
        raise KeyUnknownError(f"there is no key {key}")
    return _view(row)


async def list_some(
    connection: AsyncConnection, *, kind: KeyKind | None, revoked: bool, after: Place | None, limit: int
) -> KeyList:
    """Return a page of up to `limit` keys, oldest first; with `revoked`, those too."""
    query = select(*_VIEW).order_by(credentials.c.created_at, credentials.c.id).limit(limit + 1)
    if kind is not None:
        query = query.where(credentials.c.kind == kind)
    if not revoked:
        query = query.where(credentials.c.revoked_at.is_(None))
    if after is not None:
        place = tuple_(credentials.c.created_at, credentials.c.id)
        query = query.where(place > tuple_(literal(after.created_at), literal(after.id)))
    found = [_view(row) for row in await connection.execute(query)]
    page = found[:limit]
    more = len(found) > limit
    return KeyList(keys=page, next=Place(page[-1].created_at, page[-1].id).cursor() if more else None)


async def revoke(connection: AsyncConnection, key: str, *, by: str) -> bool:
    """Revoke the key everywhere; return whether it was valid until now. Raises KeyUnknownError.

    `by`: id of the operator key that asks for it.
    """
    revoked = await connection.scalars(
        update(credentials)
        .where(credentials.c.id == key, credentials.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(credentials.c.id)
    )
    if revoked.one_or_none() is None:
        await show(connection, key)
        return False
    await audit.note(connection, actor=_actor(by), subject=f"key:{key}", action="revoked")
    await connection.execute(select(func.pg_notify(REVOKED, key)))
    return True


async def used(connection: AsyncConnection, keys: Iterable[str]) -> None:
    """Note that these keys were in use just now."""
    # In one order everywhere, so that two replicas do not wait for each other.
    rows = select(credentials.c.id).where(credentials.c.id.in_(sorted(keys))).order_by(credentials.c.id)
    locked = rows.with_for_update().cte("locked")
    await connection.execute(
        update(credentials).where(credentials.c.id == locked.c.id).values(last_used_at=func.now())
    )


def _actor(key: str | None) -> str:
    """Return the actor for the audit; whoever has the database needs no key."""
    return LOCAL if key is None else f"operator:{key}"


def _view(row: Any) -> KeyView:
    fields = row._asdict()
    fields["scopes"] = _scopes(row.kind, row.scopes)
    return KeyView(**fields)


def _scopes(kind: KeyKind, stored: Sequence[str] | None) -> list[Scope]:
    if kind != "application":
        return []
    return [scope for scope in SCOPES if stored is None or scope in stored]
