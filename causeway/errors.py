"""What can go wrong, as one tree.

CausewayError
├── ConfigError            a setting, an option or a file is wrong; the command line exits with 2
├── UnavailableError       something we need (a database, a port, a peer) is not there
└── ApiError               control answered with a problem (causeway.client)

Sub-packages derive their own errors from these. Every class has a stable `code`, the machine-readable
name that logs, problem documents and docs/errors.md use. Messages are one line and carry no secret.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["ApiError", "CausewayError", "ConfigError", "UnavailableError"]


class CausewayError(Exception):
    """Base of every error that Causeway raises on purpose."""

    code: ClassVar[str] = "causeway-error"


class ConfigError(CausewayError):
    """A setting, an option or a file is wrong; the message says which and what would be right."""

    code: ClassVar[str] = "config-error"


class UnavailableError(CausewayError):
    """Something that is needed is not there; the message says what to do about it."""

    code: ClassVar[str] = "unavailable"


class ApiError(CausewayError):
    """Control refused a request.

    `status` is the HTTP status, `type` the problem's stable name (RFC 9457 `type`), `detail` its sentence.
    """

    code: ClassVar[str] = "api-error"

    def __init__(self, status: int, type_: str, detail: str) -> None:
        super().__init__(f"{status} {type_}: {detail}")
        self.status = status
        self.type = type_
        self.detail = detail
