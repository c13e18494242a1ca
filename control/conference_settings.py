"""`[control.conference]`: what applications may keep with a conference, and the end of forgotten ones."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ConferenceSettings"]


class ConferenceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.conference]`."""

    max_metadata_bytes: Annotated[int, Meta(ge=2, le=1 << 20)] = 4096
    """Largest metadata of a conference, as JSON, bytes. Should be below `control.http.max_body_bytes`.
    Default 4 KiB."""
    sweep_interval: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    """Seconds between looks for conferences that were empty for their time. Default 1."""
    sweep_batch: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Conferences ended in one transaction; there are as many transactions as needed. Default 100."""
