"""Following one event through the bridges it passes: a debug line for each step, by the event's id.

The same id stands in the logs of every bridge on the way, so searching all of them for it shows the way, and
where it ends. On our own wire it is the id that the event bears. OWT's wire has none: there it is made of
what both ends know of the place where the event travels (`owt_id`); it is another one on the next link.

Off unless the log's level is `debug`; then a step costs one look at a flag. What an event says is never
logged, only what it is about. Nothing of wires is known here.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal, Protocol, TypeAlias

import structlog

__all__ = ["Happening", "Step", "following", "owt_id", "step"]

Step: TypeAlias = Literal["sent", "received", "relayed", "told", "duplicate", "dropped", "refused"]
"""`sent` to a peer, `received` from one, `relayed` to the next, `told` to our node (which has answered);
`duplicate`: it was here before; `dropped`: a limit or a lost link cost it; `refused`: by our node."""

_NAME: Final = "bridges.trail"
_MAX_SUBJECT: Final = 128
_switch: Final = logging.getLogger(_NAME)
_log: Final = structlog.get_logger(_NAME)


def following() -> bool:
    """Return whether steps are logged; ask before a step's arguments are made."""
    return _switch.isEnabledFor(logging.DEBUG)


class Happening(Protocol):
    """An event, as any wire has it."""

    @property
    def type(self) -> str:
        """What happened."""

    @property
    def data(self) -> Any:
        """To what, as JSON."""


def step(what: Step, event: Happening, *, id: str, conference: str, peer: str, **more: Any) -> None:  # noqa: A002 - it is called so in logs, wires and documents
    """Log a step of an event towards or from `peer`; `more` is what is known besides (origin, reason)."""
    _log.debug(
        f"event.{what}",
        id=id,
        conference=conference,
        peer=peer,
        type=event.type,
        subject=_subject(event.data),
        **more,
    )


def owt_id(connection: str, stream: int | str, *, by_dialer: bool, number: int) -> str:
    """Return the id of the `number`th event (from 1) that one end has written to a stream of OWT's wire.

    `connection` is the id that the dialer drew for the QUIC connection's beginning, `stream` QUIC's number:
    both ends know them.
    """
    return f"{connection}/{stream}/{'d' if by_dialer else 'l'}{number}"


def _subject(data: Any) -> str:
    """Return the id of the participant or stream that an event is about; empty: of none in particular."""
    found = data.get("id", "") if isinstance(data, dict) else data
    return found[:_MAX_SUBJECT] if isinstance(found, str) else ""
