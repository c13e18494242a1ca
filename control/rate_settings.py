"""`[control.rate]`: how often callers may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["BucketSettings", "RateSettings"]


class BucketSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often something may happen."""

    rate: Annotated[float, Meta(gt=0, le=1_000_000)]
    """Requests a second that may go on for ever."""
    burst: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Requests at once after a quiet time."""


class RateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate]`: requests per access key, by its kind; more are answered 429.

    Each replica counts for itself.
    """

    enrolment: BucketSettings = BucketSettings(rate=10_000, burst=20_000)
    """Clusters: several may share a key, and each beats. Default 10,000 a second, burst 20,000."""
    application: BucketSettings = BucketSettings(rate=5_000, burst=10_000)
    """Applications. Default 5,000 a second, burst 10,000."""
    operator: BucketSettings = BucketSettings(rate=500, burst=1_000)
    """Operators. Default 500 a second, burst 1,000."""
    failures: BucketSettings = BucketSettings(rate=5, burst=100)
    """Requests without a valid key from one remote address (IPv6: one /64 network); beyond, only keys that
    were seen to be good are served. Behind a proxy all clients share its address. Default 5 a second, burst
    100."""
    max_entries: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Keys, and addresses, that are counted at once. Default 10,000."""
