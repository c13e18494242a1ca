"""Errors over HTTP."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Problem"]


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem document (`application/problem+json`). `type` is stable: docs/errors.md lists all."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
