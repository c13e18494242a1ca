"""What all of the API's types share: the vocabulary of fields, and the two bases.

Requests refuse unknown fields; answers may grow. Times are RFC 3339 in UTC, durations are seconds,
fingerprints are SHA-256 over the DER certificate in lower-case hex.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

__all__ = [
    "EPOCH_HEADER",
    "NAME",
    "REPORT_HEADER",
    "Answer",
    "ClusterId",
    "ConferenceId",
    "Fingerprint",
    "Host",
    "HttpUrl",
    "Module",
    "Port",
    "Region",
    "Request",
    "Role",
    "Secret",
    "User",
]

EPOCH_HEADER: Final = "Causeway-Epoch"
REPORT_HEADER: Final = "Causeway-Report"
"""A report's number: larger than those of all requests that the cluster has sent before."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._~@:-]*$(?!\n)"
ClusterId = Annotated[str, Meta(pattern=NAME, max_length=128)]
ConferenceId = Annotated[str, Meta(pattern=NAME, max_length=128)]
Region = Annotated[str, Meta(pattern=NAME, max_length=64)]
Module = Annotated[str, Meta(pattern=NAME, max_length=64)]
User = Annotated[str, Meta(min_length=1, max_length=256)]
Role = Annotated[str, Meta(pattern=NAME, max_length=64)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Host = Annotated[str, Meta(min_length=1, max_length=253)]
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Secret = Annotated[str, Meta(min_length=1, max_length=512)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s]+$(?!\n)", max_length=2048)]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody sends us."""


class Answer(Struct, frozen=True, kw_only=True):
    """What we answer; a client ignores fields that it does not know."""
