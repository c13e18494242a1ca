"""What one channel has told its agent, and what there is to tell now. Pure: no socket, no clock, no registry.

A channel begins with the whole state; from then on it says what has changed since the version it said last.
What was said is remembered here, so a change that is changed back before it was said is not said at all, and
it does no harm to look once too often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from causeway.channel import Delta, Desired

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from causeway.channel import Assignment

__all__ = ["Change", "Telling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What there is to tell: assignments that are new or different, and conferences that are over."""

    set: tuple[Assignment, ...]
    drop: tuple[str, ...]


class Telling:
    """What an agent has been told on one channel."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._told: dict[str, Assignment] = {}

    @property
    def version(self) -> int | None:
        """The version that was told last; None: nothing was."""
        return self._version

    def everything(self, version: int, state: Mapping[str, Assignment]) -> Desired:
        """Return the message that says all of the state, by conference."""
        self._version, self._told = version, dict(state)
        return Desired(version=version, conferences=[state[name] for name in sorted(state)])

    def compare(
        self, state: Mapping[str, Assignment], *, among: Collection[str] | None = None
    ) -> Change | None:
        """Return what is to be told of this state, None if it is known.

        `among`: the state was read for these conferences only, and says nothing of others.
        """
        asked = self._told.keys() | state.keys() if among is None else among
        new = tuple(
            state[name] for name in sorted(asked) if name in state and state[name] != self._told.get(name)
        )
        over = tuple(name for name in sorted(asked) if name in self._told and name not in state)
        return Change(set=new, drop=over) if new or over else None

    def tell(self, version: int, change: Change) -> Delta:
        """Return the message that says the change. There must have been an `everything` before."""
        assert self._version is not None, "the first message says everything"
        base, self._version = self._version, version
        for name in change.drop:
            self._told.pop(name, None)
        self._told |= {each.conference: each for each in change.set}
        return Delta(base=base, version=version, set=list(change.set), drop=list(change.drop))
