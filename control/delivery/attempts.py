"""What becomes of a webhook's message, and of the webhook, after a try. Pure: tables and arithmetic.

A message waits (`pending`) until it is taken (`delivered`) or given up (`dead`); either can be had again:

    pending ──(taken)──> delivered ──(replay)──> pending
       │ └─(failed)─> pending, due later
       └──(failed, too old)──> dead ──(replay)──> pending

A webhook has a circuit, so that a receiver that is down is not asked once for every message that waits, and
is not run over when it is back. It is one for all replicas, and lives in the registry:

    closed ──(too many failures in a row)──> open ──(pause over)──> half-open ──(success)──> closed
                                              ^                        │
                                              └────────(failure)───────┘

While it is half-open one message at a time may try. A failure that comes while it is open belongs to a try
that began before, and changes nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from control.webhook_settings import WebhookSettings

__all__ = [
    "CIRCUIT",
    "MESSAGE",
    "Attempt",
    "Circuit",
    "Endpoint",
    "MessageState",
    "Outcome",
    "Verdict",
    "circuit_of",
    "judge",
    "outcome_of",
]

MessageState: TypeAlias = Literal["pending", "delivered", "dead"]
MessageEvent: TypeAlias = Literal["taken", "failed", "expired", "replay"]
Circuit: TypeAlias = Literal["closed", "open", "half-open"]
CircuitEvent: TypeAlias = Literal["success", "failure", "last straw", "pause over"]

MESSAGE: Final[Mapping[tuple[MessageState, MessageEvent], MessageState]] = MappingProxyType(
    {
        ("pending", "taken"): "delivered",
        ("pending", "failed"): "pending",
        ("pending", "expired"): "dead",
        ("pending", "replay"): "pending",
        ("delivered", "replay"): "pending",
        ("dead", "replay"): "pending",
    }
)
"""What is not in here cannot happen."""

CIRCUIT: Final[Mapping[tuple[Circuit, CircuitEvent], Circuit]] = MappingProxyType(
    {
        ("closed", "success"): "closed",
        ("closed", "failure"): "closed",
        ("closed", "last straw"): "open",
        ("open", "success"): "closed",
        ("open", "failure"): "open",
        ("open", "last straw"): "open",
        ("open", "pause over"): "half-open",
        ("half-open", "success"): "closed",
        ("half-open", "failure"): "open",
        ("half-open", "last straw"): "open",
    }
)
"""As above."""

Outcome: TypeAlias = Literal["taken", "failed", "gone"]

_MESSAGE_GROWTH: Final = 4.0
_PAUSE_GROWTH: Final = 2.0
_MOST_DOUBLINGS: Final = 32
"""So that no float overflows, however long it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one try. `status`: the HTTP status; None: there was no answer, `error` says why."""

    status: int | None
    error: str = ""
    retry_after: float | None = None
    """Seconds that the receiver asks to be left alone."""
    seconds: float = 0.0
    """How long it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What is remembered of a webhook's failures."""

    failures: int = 0
    """In a row, across all its messages."""
    failing_since: datetime | None = None
    """When the first of them was."""
    paused_until: datetime | None = None
    """The circuit is open until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be written down after a try."""

    message: MessageState
    due_at: datetime | None
    """When the message is due again; None: it is not."""
    endpoint: Endpoint
    recovered: bool
    """The webhook works again: what waits for it is due at once."""
    disable: Literal["gone", "failing"] | None


def outcome_of(attempt: Attempt) -> Outcome:
    """Say what an answer means: any 2xx takes the message, 410 wants no more, all else is a failure."""
    status = attempt.status
    if status == HTTPStatus.GONE:
        return "gone"
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return "taken"
    return "failed"


def circuit_of(endpoint: Endpoint, now: datetime) -> Circuit:
    """Return the state of a webhook's circuit."""
    if endpoint.paused_until is None:
        return "closed"
    return "open" if now < endpoint.paused_until else CIRCUIT["open", "pause over"]


def judge(
    attempt: Attempt,
    *,
    endpoint: Endpoint,
    tries: int,
    queued_at: datetime,
    now: datetime,
    settings: WebhookSettings,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Verdict:
    """Return what becomes of a message and of its webhook.

    `tries`: of this message before this one; `queued_at`: since when it waits. Delays are drawn from the
    upper half of their range: a retry is never at once, and many that began together do not stay together.
    """
    outcome = outcome_of(attempt)
    before = circuit_of(endpoint, now)
    if outcome == "taken":
        return Verdict(
            message=MESSAGE["pending", "taken"],
            due_at=None,
            endpoint=Endpoint(),
            recovered=CIRCUIT[before, "success"] != before,
            disable=None,
        )
    after = _failed(endpoint, attempt, now, settings, uniform)
    gone = outcome == "gone"
    since = after.failing_since
    failing = since is not None and now - since >= timedelta(seconds=settings.disable_after)
    # A webhook that asks for no more does not say that it did not want this message.
    expired = not gone and now - queued_at >= timedelta(seconds=settings.give_up)
    if expired:
        return Verdict(
            message=MESSAGE["pending", "expired"],
            due_at=None,
            endpoint=after,
            recovered=False,
            disable="failing" if failing else None,
        )
    delay = _delay(settings.retry_base, _MESSAGE_GROWTH, tries, settings.retry_cap, uniform)
    wait = max(delay, min(attempt.retry_after or 0.0, settings.retry_cap))
    return Verdict(
        message=MESSAGE["pending", "failed"],
        due_at=now + timedelta(seconds=wait),
        endpoint=after,
        recovered=False,
        disable="gone" if gone else "failing" if failing else None,
    )


def _failed(
    endpoint: Endpoint,
    attempt: Attempt,
    now: datetime,
    settings: WebhookSettings,
    uniform: Callable[[float, float], float],
) -> Endpoint:
    before = circuit_of(endpoint, now)
    failures = endpoint.failures + 1
    event: CircuitEvent = "last straw" if failures >= settings.failures_to_pause else "failure"
    after = CIRCUIT[before, event]
    if before == "open":
        return endpoint
    paused_until = endpoint.paused_until
    if after == "open":
        rank = max(0, failures - settings.failures_to_pause)
        pause = _delay(settings.pause_base, _PAUSE_GROWTH, rank, settings.pause_cap, uniform)
        pause = max(pause, min(attempt.retry_after or 0.0, settings.pause_cap))
        paused_until = now + timedelta(seconds=pause)
    return Endpoint(failures=failures, failing_since=endpoint.failing_since or now, paused_until=paused_until)


def _delay(
    base: float, growth: float, rank: int, cap: float, uniform: Callable[[float, float], float]
) -> float:
    longest = min(cap, base * growth ** min(rank, _MOST_DOUBLINGS))
    return uniform(longest / 2, longest)
