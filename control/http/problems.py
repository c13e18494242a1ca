"""Problem documents (RFC 9457): every answer that is no success. The `type` names are stable; docs/errors.md.

The table below is what the documentation is checked against.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from starlette.responses import Response

from causeway.api import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from control.errors import RefusedError

__all__ = ["MEDIA_TYPE", "PROBLEMS", "Kind", "problem", "refusal", "status_problem"]

MEDIA_TYPE: Final = "application/problem+json"


class Kind(NamedTuple):
    """A problem type: its HTTP status, its title, and what the client is to do about it."""

    status: int
    title: str
    advice: str


PROBLEMS: Final[dict[str, Kind]] = {
    "malformed-json": Kind(400, "The body is not JSON", "Send UTF-8 JSON."),
    "epoch-missing": Kind(
        400, "The report has no epoch", "Send the epoch of the lease in the header Causeway-Epoch."
    ),
    "unauthenticated": Kind(
        401, "No valid access key", "Send `Authorization: Bearer cw_…` with a key that is valid here."
    ),
    "forbidden": Kind(
        403,
        "This kind of key may not do that",
        "Enrolment keys are for clusters, application keys for conferences within their scopes, "
        "operator keys for all.",
    ),
    "not-found": Kind(404, "There is nothing at this path", "Check the path against docs/api.md."),
    "cluster-unknown": Kind(
        404,
        "The cluster holds no lease",
        "Register the cluster (again), then send all its reports again; they are idempotent.",
    ),
    "agent-unknown": Kind(
        404, "The agent holds no lease", "Register the agent (again), then open its channel."
    ),
    "conference-unknown": Kind(
        404, "There is no such conference", "Create it first. A cluster may drop the report."
    ),
    "template-unknown": Kind(
        404,
        "There is no such template for new conferences",
        "The detail lists those that there are; an operator can save another one.",
    ),
    "key-unknown": Kind(404, "There is no such access key", "List the keys; ids have 12 hex digits."),
    "webhook-unknown": Kind(404, "There is no such webhook", "List the webhooks."),
    "delivery-unknown": Kind(
        404,
        "There is no such message to the webhook",
        "List its deliveries. What is old is forgotten, and can be replayed by time from the event log.",
    ),
    "method-not-allowed": Kind(405, "The path does not take this method", "See the header Allow."),
    "cluster-claimed": Kind(
        409,
        "Another deployment holds this cluster id",
        "Give each deployment an id of its own. If the holder is gone for good, unregister it or wait until "
        "its lease has run out.",
    ),
    "agent-incompatible": Kind(
        409,
        "No version of the agent's messages is known here",
        "The detail says which versions are. Replace the older one of agent and control by a newer release.",
    ),
    "stale-epoch": Kind(
        409,
        "The registration was replaced by a newer one",
        "Another instance serves this cluster id now; stop reporting, or register again to take over.",
    ),
    "report-superseded": Kind(
        409,
        "The cluster has told something newer",
        "If it is still so, tell it again, with a larger number in the header Causeway-Report.",
    ),
    "conference-ending": Kind(
        409,
        "The conference is being deleted",
        "Wait until it is gone (GET answers 404), then create it anew.",
    ),
    "conference-exists": Kind(
        409,
        "There is another conference with this id",
        "The detail names the field that differs. Take another id, or change the one that is there (PATCH).",
    ),
    "template-default": Kind(
        409,
        "The default template cannot be deleted",
        "Save another version of it instead (PUT).",
    ),
    "webhook-limit": Kind(
        409,
        "There are as many webhooks as may be",
        "Delete one that is not needed, or raise control.webhooks.max_webhooks.",
    ),
    "role-not-allowed": Kind(
        403, "The conference has no such role", "Ask for one of the roles of its template."
    ),
    "conference-locked": Kind(
        409, "Nobody new is let in", "Wait until the conference is unlocked (PATCH, `locked`)."
    ),
    "conference-full": Kind(
        409, "The conference is full", "Try again after Retry-After, or raise its participant_limit."
    ),
    "idempotency-busy": Kind(
        409,
        "The same request is being worked on",
        "Try again after Retry-After; the answer will be the first one's.",
    ),
    "idempotency-mismatch": Kind(
        422, "The Idempotency-Key belongs to another request", "Use a new key for a new request."
    ),
    "events-gone": Kind(
        410,
        "It happened too long ago",
        "Begin with the conference as it is. control.events.retention_days says how long events are kept.",
    ),
    "precondition-failed": Kind(
        412, "It is not what If-Match names", "Read it again, decide again, and send the new ETag."
    ),
    "body-too-large": Kind(
        413, "The body is too large", "Send less; the limit is control.http.max_body_bytes."
    ),
    "unsupported-media-type": Kind(
        415, "The body is not marked as JSON", "Send `Content-Type: application/json`."
    ),
    "invalid-request": Kind(
        422, "A field, header or path part is not allowed", "The detail names it; see docs/api.md."
    ),
    "upgrade-required": Kind(
        426, "The path is a WebSocket's", "Open a WebSocket, with a subprotocol that docs/agents.md names."
    ),
    "rate-limited": Kind(
        429,
        "Too many requests",
        "Try again after Retry-After. The limits are control.rate; only a valid key stops counting failures.",
    ),
    "head-too-large": Kind(431, "The request's headers are too large", "Send fewer or shorter headers."),
    "internal-error": Kind(
        500,
        "Something is wrong in the service",
        "Report it with `instance`, which the service's log has, too.",
    ),
    "cluster-failed": Kind(
        502, "Every cluster that was tried failed", "Try again after Retry-After; nothing is left behind."
    ),
    "no-cluster": Kind(
        503, "No cluster can take the client", "Try again after Retry-After, or register a cluster."
    ),
    "database-unavailable": Kind(
        503, "The database does not answer", "Try again after Retry-After; nothing was changed."
    ),
    "overloaded": Kind(503, "Too many requests at once", "Try again after Retry-After."),
    "cluster-timeout": Kind(
        504, "The cluster did not answer in time", "Try again after Retry-After; nothing is left behind."
    ),
}

_BY_STATUS: Final = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}
_ENCODER: Final = msgspec.json.Encoder()


def problem(
    name: str, detail: str = "", *, instance: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return the problem document of this type."""
    kind = PROBLEMS[name]
    document = Problem(type=name, title=kind.title, status=kind.status, detail=detail, instance=instance)
    return Response(
        _ENCODER.encode(document), status_code=kind.status, headers=headers, media_type=MEDIA_TYPE
    )


def refusal(error: RefusedError) -> Response:
    """Return the problem document of a refusal."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    return problem(error.code, error.detail, headers=headers)


def status_problem(status: int, headers: Mapping[str, str] | None) -> Response:
    """Return the problem document of what the framework itself refuses."""
    name = _BY_STATUS.get(status)
    if name is not None:
        return problem(name, headers=headers)
    # Nothing else is known to happen. If it does: RFC 9457, section 4.2.1, "about:blank".
    document = Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status)
    return Response(_ENCODER.encode(document), status_code=status, headers=headers, media_type=MEDIA_TYPE)
