"""Cuts bytes into parts of about the same length. Pure."""

from __future__ import annotations

__all__ = ["even_chunks"]


def even_chunks(data: bytes, max_bytes: int) -> list[bytes]:
    """Return as few parts as there can be of at most `max_bytes`, no two differing by more than a byte."""
    count = -(-len(data) // max_bytes)
    return [data[len(data) * n // count : len(data) * (n + 1) // count] for n in range(count)]
