"""The life of a child process as a state machine. Pure: no process, no clock; time is an argument in seconds.

The rules: a child starts, and runs once its readiness condition held. One that ends without having been told
to is started again after a pause that grows while it keeps failing, unless it may not be restarted or has
never been ready: then it has failed, and so has the laboratory. Everything that changes a state is in
TRANSITIONS; the shell (lab.launcher.supervisor) only says what happened.
"""

from __future__ import annotations

import enum
from typing import Final

from causeway.backoff import Backoff
from causeway.errors import CausewayError

__all__ = ["TRANSITIONS", "ChildLife", "Event", "ImpossibleEventError", "State"]


class State(enum.Enum):
    """Where a child is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(enum.Enum):
    """What can happen to a child."""

    START = "start"
    READY = "ready"
    EXITED = "exited"
    """It ended and may be started again."""
    GIVEN_UP = "given up"
    """It ended and may not be started again; derived from EXITED, never handed in."""
    DUE = "due"
    """The pause before the next start is over."""
    STOP = "stop"


class ImpossibleEventError(CausewayError):
    """The shell reported something that cannot happen in this state: a defect of the shell."""

    code = "impossible-event"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.STARTING, Event.READY): State.RUNNING,
    (State.STARTING, Event.EXITED): State.BACKING_OFF,
    (State.RUNNING, Event.EXITED): State.BACKING_OFF,
    (State.STARTING, Event.GIVEN_UP): State.FAILED,
    (State.RUNNING, Event.GIVEN_UP): State.FAILED,
    (State.BACKING_OFF, Event.DUE): State.STARTING,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.EXITED): State.STOPPED,
    (State.BACKING_OFF, Event.STOP): State.STOPPED,
    (State.STOPPED, Event.STOP): State.STOPPED,
    (State.FAILED, Event.STOP): State.FAILED,
}


class ChildLife:
    """One child's state, and when it is due to start again."""

    def __init__(self, *, restart: bool, backoff: Backoff | None = None, settled_after: float = 10.0) -> None:
        """`settled_after`: seconds of running after which earlier failures are forgiven."""
        self.state = State.STOPPED
        self.starts = 0
        """How often it was started."""
        self.due_at = 0.0
        """When it starts again; meaningful while backing off."""
        self._restart = restart
        self._backoff = backoff or Backoff(base=0.2, cap=5.0)
        self._settled_after = settled_after
        self._ready_at: float | None = None
        self._was_ready = False

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)

    def handle(self, event: Event, now: float) -> State:
        """Return the state that follows `event`; raises ImpossibleEventError."""
        if event is Event.EXITED and self.state is not State.STOPPING and not self._may_restart:
            event = Event.GIVEN_UP
        try:
            state = TRANSITIONS[self.state, event]
        except KeyError:
            raise ImpossibleEventError(f"{event.value} while {self.state.value}") from None
        if state is State.STARTING:
            self.starts += 1
            self._ready_at = None
        elif state is State.RUNNING:
            self._ready_at = now
            self._was_ready = True
        elif state is State.BACKING_OFF:
            if self._ready_at is not None and now - self._ready_at >= self._settled_after:
                self._backoff.reset()
            self.due_at = now + self._backoff.next_delay()
        self.state = state
        return state

    @property
    def _may_restart(self) -> bool:
        return self._restart and self._was_ready
