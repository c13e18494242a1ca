"""What events and objects are made of: JSON's values, as msgpack. Checked where they come in.

JSON and msgpack do not have the same values: byte strings, extension types, keys that are no strings and
numbers that are not finite exist on one side only, and are refused.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "decode_value", "encode_value"]

MAX_DEPTH: Final = 32
"""How deep arrays and maps may be nested."""

_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")
_DECODER: Final = msgspec.msgpack.Decoder()
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def encode_value(value: Any) -> bytes:
    """Return the canonical encoding: shortest forms, keys of maps in the order of their bytes.

    Raises ValueError for what JSON does not have, or what is nested too deep.
    """
    _check(value, MAX_DEPTH)
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
    _check(value, MAX_DEPTH)
    return value


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is dict or kind is list:
        if not depth:
            raise ValueError("nested too deep")
        if kind is dict:
            _check_keys(value)
        for entry in value.values() if kind is dict else value:
            _check(entry, depth - 1)
    elif kind is not float:
        raise ValueError(f"a {kind.__name__}, which JSON does not have")
    elif not math.isfinite(value):
        raise ValueError("a number that is not finite")


def _check_keys(value: dict[Any, Any]) -> None:
    if not all(type(key) is str for key in value):
        raise ValueError("a key that is no string")
