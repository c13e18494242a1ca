"""What applications keep with a conference: its limits, and how a patch changes it. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from control.errors import InvalidRequestError

__all__ = ["MAX_METADATA_DEPTH", "MAX_METADATA_KEYS", "check_metadata", "check_nesting", "merged"]

MAX_METADATA_KEYS: Final = 64
MAX_METADATA_DEPTH: Final = 16


def merged(target: Any, patch: Any) -> Any:
    """Return the target as a JSON merge patch (RFC 7396) changes it."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept


def check_metadata(metadata: dict[str, Any], max_bytes: int) -> None:
    """Raise InvalidRequestError for metadata that are too large, as JSON, too many or nested too deeply."""
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidRequestError(f"metadata: at most {MAX_METADATA_KEYS} keys")
    check_nesting(metadata)
    if len(msgspec.json.encode(metadata)) > max_bytes:
        raise InvalidRequestError(f"metadata: at most {max_bytes} bytes as JSON")


def check_nesting(value: Any, levels: int = MAX_METADATA_DEPTH) -> None:
    """Raise InvalidRequestError for more levels than that; do this before anything else that recurses."""
    if not isinstance(value, dict | list):
        return
    if levels == 0:
        raise InvalidRequestError(f"metadata: nested more than {MAX_METADATA_DEPTH} deep")
    for inner in value.values() if isinstance(value, dict) else value:
        check_nesting(inner, levels - 1)
