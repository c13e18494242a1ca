"""What is missing in a conference: `plan(view, now)` says it, the executor does it. Pure.

Signatures stand; the body follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from control.cascade.view import Action, View

__all__ = ["next_look", "plan"]


def plan(view: View, now: datetime) -> tuple[Action, ...]:
    """Return what is to be done now; at most one action per subject."""
    raise NotImplementedError


def next_look(view: View, now: datetime) -> datetime | None:
    """Return when, after `now`, an action that waits only for time becomes due; None: nothing waits."""
    raise NotImplementedError
