"""What came of an action, as the reconciler and the breakers want to know it; and how failures are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from causeway.backoff import Backoff
from control.drivers.base import (
    BrokenDownError,
    CredentialsRefusedError,
    DriverError,
    DriverTimeoutError,
    MalformedAnswerError,
    UnreachableError,
)

if TYPE_CHECKING:
    from control.settings import ReconcileSettings

__all__ = ["ANSWERED", "DONE", "NOT_BEGUN", "Outcome", "delay", "said", "verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an action, beside what is in the registry now."""

    begun: bool = True
    """False: nothing could be begun, as the world is no longer what the view says."""
    answered: bool | None = None
    """Whether the cluster that was called answered as it should, though perhaps with a refusal. None: none
    was called, or what went wrong may be another's fault."""
    fault: str = ""
    """How it failed to answer."""


DONE: Final = Outcome()
NOT_BEGUN: Final = Outcome(begun=False)
ANSWERED: Final = Outcome(answered=True)


def verdict(error: Exception, *, of_two: bool = False) -> Outcome:
    """Say whether the cluster is to blame. `of_two`: the call makes it talk with another cluster."""
    slow = isinstance(error, BrokenDownError | DriverTimeoutError | TimeoutError)
    if of_two and slow:
        return DONE
    if slow or isinstance(error, UnreachableError | MalformedAnswerError | CredentialsRefusedError):
        return Outcome(answered=False, fault=said(error))
    return ANSWERED if isinstance(error, DriverError) else DONE


def said(error: Exception) -> str:
    """Return an error as operators see it, in words that carry no secret."""
    if isinstance(error, TimeoutError):
        return "cluster-timeout: no answer in time"
    code = getattr(error, "code", "error")
    return f"{code}: {error}"[:500]


def delay(settings: ReconcileSettings, failures: int) -> float:
    """Return how long to wait, in seconds, after so many failures before this one."""
    backoff = Backoff(base=settings.retry_base, cap=settings.retry_cap)
    backoff.attempts = failures
    return backoff.next_delay()
