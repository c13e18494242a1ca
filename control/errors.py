"""Why the central service refuses a request, as one tree. HTTP statuses are control.http.problems' business.

CausewayError
└── RefusedError                     `code` is the problem type; the message is its detail, without secrets
    ├── ClusterUnknownError, ClusterClaimedError, ConferenceUnknownError
    ├── AgentUnknownError, AgentIncompatibleError, UpgradeRequiredError
    ├── StaleEpochError, ReportSupersededError, ConferenceEndingError, PreconditionFailedError
    ├── InvalidRequestError, MalformedJsonError, EpochMissingError, BodyTooLargeError, UnsupportedMediaError
    ├── UnauthenticatedError, ForbiddenError, RateLimitedError, NotFoundError, KeyUnknownError
    ├── ConferenceLockedError, ConferenceFullError, RoleNotAllowedError
    ├── IdempotencyMismatchError, IdempotencyBusyError
    ├── EventsGoneError
    ├── NoClusterError, ClusterFailedError, ClusterTimeoutError
    ├── WebhookUnknownError, DeliveryUnknownError, WebhookLimitError
    └── DatabaseUnavailableError, OverloadedError
"""

from __future__ import annotations

from typing import ClassVar

from causeway.errors import CausewayError

__all__ = [
    "AgentIncompatibleError",
    "AgentUnknownError",
    "BodyTooLargeError",
    "ClusterClaimedError",
    "ClusterFailedError",
    "ClusterTimeoutError",
    "ClusterUnknownError",
    "ConferenceEndingError",
    "ConferenceExistsError",
    "ConferenceFullError",
    "ConferenceLockedError",
    "ConferenceUnknownError",
    "DatabaseUnavailableError",
    "DeliveryUnknownError",
    "EpochMissingError",
    "EventsGoneError",
    "ForbiddenError",
    "IdempotencyBusyError",
    "IdempotencyMismatchError",
    "InvalidRequestError",
    "KeyUnknownError",
    "MalformedJsonError",
    "NoClusterError",
    "NotFoundError",
    "OverloadedError",
    "PreconditionFailedError",
    "RateLimitedError",
    "RefusedError",
    "ReportSupersededError",
    "RoleNotAllowedError",
    "StaleEpochError",
    "TemplateDefaultError",
    "TemplateUnknownError",
    "UnauthenticatedError",
    "UnsupportedMediaError",
    "WebhookLimitError",
    "WebhookUnknownError",
]


class RefusedError(CausewayError):
    """A request is not done; nothing of it is left behind. `retry_after`: seconds until it may succeed."""

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class ClusterUnknownError(RefusedError):
    """The cluster is not registered, or its lease ran out: it must register and report everything anew."""

    code = "cluster-unknown"


class ClusterClaimedError(RefusedError):
    """Another deployment holds the cluster id."""

    code = "cluster-claimed"


class AgentUnknownError(RefusedError):
    """The agent is not registered, or its lease ran out: it must register anew."""

    code = "agent-unknown"


class AgentIncompatibleError(RefusedError):
    """The agent and this service have no version of the channel's messages in common."""

    code = "agent-incompatible"


class UpgradeRequiredError(RefusedError):
    """The path is a WebSocket's, and the request does not ask for one."""

    code = "upgrade-required"


class ConferenceUnknownError(RefusedError):
    """There is no such conference."""

    code = "conference-unknown"


class StaleEpochError(RefusedError):
    """The registration that this report belongs to was replaced by a newer one."""

    code = "stale-epoch"


class ReportSupersededError(RefusedError):
    """The cluster has told something newer of the same thing since this report was sent."""

    code = "report-superseded"


class ConferenceEndingError(RefusedError):
    """The conference is being deleted."""

    code = "conference-ending"


class ConferenceLockedError(RefusedError):
    """Nobody new is let into the conference."""

    code = "conference-locked"


class ConferenceFullError(RefusedError):
    """The conference has as many participants as it may have."""

    code = "conference-full"


class RoleNotAllowedError(RefusedError):
    """The conference's template has no such role."""

    code = "role-not-allowed"


class IdempotencyMismatchError(RefusedError):
    """The same Idempotency-Key came with another request before."""

    code = "idempotency-mismatch"


class IdempotencyBusyError(RefusedError):
    """A request with the same Idempotency-Key is still being worked on."""

    code = "idempotency-busy"


class PreconditionFailedError(RefusedError):
    """What is there is not what If-Match names."""

    code = "precondition-failed"


class ConferenceExistsError(RefusedError):
    """There is a conference with this id, and it is another one than was asked for."""

    code = "conference-exists"


class TemplateUnknownError(RefusedError):
    """There is no template of this name for new conferences; the message lists those that there are."""

    code = "template-unknown"


class TemplateDefaultError(RefusedError):
    """The default template cannot be deleted."""

    code = "template-default"


class InvalidRequestError(RefusedError):
    """The request's path, header or body is understood, but not allowed."""

    code = "invalid-request"


class EventsGoneError(RefusedError):
    """What is asked for happened too long ago: its events are no longer kept."""

    code = "events-gone"


class MalformedJsonError(RefusedError):
    """The body is not JSON."""

    code = "malformed-json"


class EpochMissingError(RefusedError):
    """A report came without the epoch of its lease."""

    code = "epoch-missing"


class BodyTooLargeError(RefusedError):
    """The body is larger than allowed."""

    code = "body-too-large"


class UnsupportedMediaError(RefusedError):
    """The body says of itself that it is something else than JSON."""

    code = "unsupported-media-type"


class NotFoundError(RefusedError):
    """There is nothing at this path, or nothing that the sender may know of."""

    code = "not-found"


class UnauthenticatedError(RefusedError):
    """No key, or one that is not valid."""

    code = "unauthenticated"


class ForbiddenError(RefusedError):
    """A valid key of the wrong kind."""

    code = "forbidden"


class NoClusterError(RefusedError):
    """No cluster can take the client now."""

    code = "no-cluster"


class ClusterFailedError(RefusedError):
    """Every cluster that was tried failed."""

    code = "cluster-failed"


class ClusterTimeoutError(RefusedError):
    """The cluster did not answer in time."""

    code = "cluster-timeout"


class DatabaseUnavailableError(RefusedError):
    """The registry's database cannot be reached."""

    code = "database-unavailable"


class KeyUnknownError(RefusedError):
    """There is no access key of this id."""

    code = "key-unknown"


class RateLimitedError(RefusedError):
    """The key is used more often than it may be, or the address fails to show one too often."""

    code = "rate-limited"


class OverloadedError(RefusedError):
    """More requests at once than this service takes."""

    code = "overloaded"


class WebhookUnknownError(RefusedError):
    """There is no webhook of this id."""

    code = "webhook-unknown"


class DeliveryUnknownError(RefusedError):
    """There is no such message to the webhook, or not any more."""

    code = "delivery-unknown"


class WebhookLimitError(RefusedError):
    """There are as many webhooks as may be."""

    code = "webhook-limit"
