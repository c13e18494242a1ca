"""`[control.rate]`: how often callers may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "ApplicationRate",
    "BucketSettings",
    "EnrolmentRate",
    "FailureRate",
    "OperatorRate",
    "RateSettings",
]


Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Burst = Annotated[int, Meta(ge=1, le=1_000_000)]


class BucketSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often something may happen."""

    rate: Rate
    """Requests a second that may go on for ever."""
    burst: Burst
    """Requests at once after a quiet time."""


class EnrolmentRate(BucketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate.enrolment]`: clusters; several may share a key, and each beats."""

    rate: Rate = 10_000
    """Requests a second that may go on for ever. Default 10,000."""
    burst: Burst = 20_000
    """Requests at once after a quiet time. Default 20,000."""


class ApplicationRate(BucketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate.application]`: applications."""

    rate: Rate = 5_000
    """Requests a second that may go on for ever. Default 5,000."""
    burst: Burst = 10_000
    """Requests at once after a quiet time. Default 10,000."""


class OperatorRate(BucketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate.operator]`: operators."""

    rate: Rate = 500
    """Requests a second that may go on for ever. Default 500."""
    burst: Burst = 1_000
    """Requests at once after a quiet time. Default 1,000."""


class FailureRate(BucketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate.failures]`: requests without a valid key from one address (IPv6: one /64 network).

    Beyond, only keys that were seen to be good are served. Behind a proxy all clients share its address.
    """

    rate: Rate = 5
    """Requests a second that may go on for ever. Default 5."""
    burst: Burst = 100
    """Requests at once after a quiet time. Default 100."""


class RateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.rate]`: requests per access key, by its kind; more are answered 429.

    Each replica counts for itself.
    """

    enrolment: EnrolmentRate = EnrolmentRate()
    application: ApplicationRate = ApplicationRate()
    operator: OperatorRate = OperatorRate()
    failures: FailureRate = FailureRate()
    max_entries: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Keys, and addresses, that are counted at once. Default 10,000."""
