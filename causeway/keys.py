"""The text of an access key: how it is made and how it is read.

    cw_<kind>_<id>_<secret>        kind: enrolment | application | operator
                                   id: 12 hex digits, public, names the key in the registry and in logs
                                   secret: 64 hex digits (256 random bits)

Control stores only a hash of the secret. This module must not know where keys are kept.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast, get_args

__all__ = ["KINDS", "SCOPES", "Key", "KeyKind", "Scope", "new_key", "parse_key"]

KeyKind: TypeAlias = Literal["enrolment", "application", "operator"]
KINDS: Final[tuple[KeyKind, ...]] = get_args(KeyKind)
"""enrolment: clusters and agents; application: conferences and joins; operator: everything."""

Scope: TypeAlias = Literal["join", "conferences:read", "conferences:write"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
"""What an application key may be limited to."""

_TEXT: Final = re.compile(r"cw_(enrolment|application|operator)_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key's parts; its repr does not show the secret."""

    kind: KeyKind
    id: str
    secret: str = field(repr=False)


def new_key(kind: KeyKind) -> str:
    """Return the text of a new key of this kind, drawn from the system's random source."""
    if kind not in KINDS:
        raise ValueError(f"no such kind of key; there are {', '.join(KINDS)}")
    return f"cw_{kind}_{secrets.token_hex(6)}_{secrets.token_hex(32)}"


def parse_key(text: str) -> Key | None:
    """Return the parts of a key's text, None if it is none. Says nothing about whether the key is valid."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    return Key(kind=cast("KeyKind", match[1]), id=match[2], secret=match[3])
