"""Which figures control is told next. Pure: figures in, a message out; no socket, no clock, no task.

Everything about connections and refusals each time, and of links those that have moved since they were told:
at most `max_links` in one message, the ones told longest ago first. So thousands of links that all move are
told in turn, and idle ones cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import structs

from causeway.channel import Figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.figures import BridgeFigures, LinkFigures

__all__ = ["FiguresTelling"]

_Key: TypeAlias = tuple[str, str, str]
_MAX_PEERS: Final = 1000


class FiguresTelling:
    """What one connection to control was told; a new connection begins with a new one."""

    def __init__(self, *, max_links: int) -> None:
        self._max_links = max_links
        self._told: dict[_Key, tuple[int, LinkFigures]] = {}
        """Of each link: in which message it was told last, and what."""
        self._messages = 0

    def next(self, bridges: Sequence[BridgeFigures]) -> Figures:
        """Return the next message; what is in it counts as told."""
        self._messages += 1
        present = {_key(link): link for bridge in bridges for link in bridge.links}
        self._told = {key: told for key, told in self._told.items() if key in present}
        moved = [key for key, link in present.items() if not self._is_told(key, link)]
        moved.sort(key=lambda key: self._told[key][0] if key in self._told else 0)
        chosen = set(moved[: self._max_links])
        self._told |= {key: (self._messages, _lasting(present[key])) for key in chosen}
        return Figures(
            bridges=[
                structs.replace(
                    bridge,
                    links=[link for link in bridge.links if _key(link) in chosen],
                    peers=bridge.peers[:_MAX_PEERS],
                )
                for bridge in bridges
            ]
        )

    def _is_told(self, key: _Key, link: LinkFigures) -> bool:
        return key in self._told and self._told[key][1] == _lasting(link)


def _key(link: LinkFigures) -> _Key:
    return link.kind, link.conference, link.peer


def _lasting(link: LinkFigures) -> LinkFigures:
    """Return what is worth a message when it changes: round trips and the like always do."""
    return structs.replace(link, round_trip_ms=None, lag_ms=None, backlog=0)
