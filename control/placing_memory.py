"""What placing remembers of conferences between joins: who is where, and templates.

A remembered conference is good for trying to take a seat, because whoever takes it has the database hold it
against the truth; it is not good for turning anybody away. Knows no database.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causeway.api import Template
    from control.registry.roster import Joined

__all__ = ["Memory"]


class Memory:
    """Keeps conferences for `lifetime` seconds. Bounded: what was not used for longest goes first."""

    def __init__(self, *, lifetime: float, max_conferences: int = 10_000, max_templates: int = 1024) -> None:
        self._lifetime = lifetime
        self._max_conferences = max_conferences
        self._max_templates = max_templates
        self._conferences: OrderedDict[str, tuple[float, Joined]] = OrderedDict()
        self._templates: OrderedDict[tuple[str, int], Template] = OrderedDict()

    def conference(self, name: str, now: float) -> Joined | None:
        """Return the conference as it was a moment ago."""
        known = self._conferences.get(name)
        return known[1] if known is not None and known[0] > now else None

    def keep(self, joined: Joined, now: float) -> None:
        """Remember a conference, if it is one that seats can be taken in without looking at it again."""
        if joined.state != "active" or joined.locked or joined.participant_limit >= 0:
            self.forget(joined.id)
            return
        self._conferences[joined.id] = (now + self._lifetime, joined)
        self._conferences.move_to_end(joined.id)
        if len(self._conferences) > self._max_conferences:
            self._conferences.popitem(last=False)

    def forget(self, name: str) -> None:
        """Have the conference read anew."""
        self._conferences.pop(name, None)

    def template(self, name: str, version: int) -> Template | None:
        """Return a version of a template. It never changes."""
        found = self._templates.get((name, version))
        if found is not None:
            self._templates.move_to_end((name, version))
        return found

    def keep_template(self, name: str, version: int, template: Template) -> None:
        """Remember it."""
        self._templates[name, version] = template
        if len(self._templates) > self._max_templates:
            self._templates.popitem(last=False)
