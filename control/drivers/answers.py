"""What reading the answers of any cluster has in common. Pure: no I/O."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final, TypeVar

import msgspec

from control.drivers.base import MalformedAnswerError

__all__ = ["decode", "is_host"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}")

_T = TypeVar("_T")


def decode(answer: bytes, kind: type[_T]) -> _T:
    """Read JSON as `kind`, numbers in strings too; raises MalformedAnswerError, which quotes nothing."""
    try:
        return msgspec.json.decode(answer, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedAnswerError("the answer has not the expected shape") from None


def is_host(name: str, *, ipv6: bool) -> bool:
    """Say whether it is a name or address that clients can be sent to; IPv6 without brackets."""
    if not ipv6:
        return _NAME.fullmatch(name) is not None
    try:
        return IPv6Address(name).scope_id is None
    except ValueError:
        return False
