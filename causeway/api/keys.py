"""Access keys, as operators see them: never the secret, but once, in the answer that makes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from causeway.api.base import Answer, Request
from causeway.keys import KeyKind, Scope

__all__ = ["KeyCreate", "KeyCreated", "KeyId", "KeyList", "KeyName", "KeyView"]

KeyId = Annotated[str, Meta(pattern=r"^[0-9a-f]{12}$(?!\n)")]
KeyName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)", min_length=1, max_length=100)]
"""What a person calls the key; need not be unique."""


class KeyCreate(Request, frozen=True, kw_only=True):
    """`POST /v1/keys`: make a key."""

    kind: KeyKind
    name: KeyName
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=8)] | None = None
    """What an application key may do, all of it if left out; other kinds take none."""


class KeyView(Answer, frozen=True, kw_only=True):
    """A key; `id` is the part of its text that may be shown."""

    id: str
    kind: KeyKind
    name: str
    scopes: list[Scope]
    """What an application key may do; empty for the other kinds, whose rights are fixed."""
    created_at: datetime
    created_by: str | None
    """Id of the operator key that made it; null: made at the first start, or on control's own machine."""
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class KeyCreated(KeyView, frozen=True, kw_only=True):
    """The new key with its text, which is shown only now: the registry keeps a hash."""

    key: str


class KeyList(Answer, frozen=True, kw_only=True):
    """`GET /v1/keys`: oldest first."""

    keys: list[KeyView]
    next: str | None = None
    """`cursor` of the next page; null: this is the last one."""
