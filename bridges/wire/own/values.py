"""What events and objects are made of: JSON's values, as msgpack. Checked where they come in.

JSON and msgpack do not have the same values: byte strings, extension types, keys that are no strings and
numbers that are not finite exist on one side only, and are refused.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "canonical", "decode_value", "encode_value"]

MAX_DEPTH: Final = 32
"""How deep arrays and maps may be nested."""

_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")
_DECODER: Final = msgspec.msgpack.Decoder()
_STRING: Final = frozenset({str})
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def canonical(value: Any) -> bytes:
    """Return the canonical encoding of a value that was checked: shortest, keys in their bytes' order."""
    return _CANONICAL.encode(value)


def encode_value(value: Any) -> bytes:
    """Return the canonical encoding. Raises ValueError for what JSON does not have, or is nested too deep."""
    _check(value)
    try:
        return _CANONICAL.encode(value)
    except (OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"cannot be encoded: {error}") from None


def decode_value(data: bytes | msgspec.Raw) -> Any:
    """Return the value of an encoding, canonical or not. Raises ValueError for what is none of JSON's."""
    try:
        value = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    _check(value)
    return value


def _check(value: Any) -> None:
    """Look at every value once, level by level."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for container in level:
            if type(container) is dict:
                if not _STRING.issuperset(map(type, container)):
                    raise ValueError("a key that is no string")
                entries: Any = container.values()
            else:
                entries = container
            for entry in entries:
                kind = type(entry)
                if kind in _PLAIN:
                    continue
                if kind is dict or kind is list:
                    deeper.append(entry)
                else:
                    _check_number(entry)
        if not deeper:
            return
        level = deeper
    raise ValueError("nested too deep")


def _check_number(value: Any) -> None:
    if type(value) is not float:
        raise ValueError(f"a {type(value).__name__}, which JSON does not have")
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
