"""Which replica shall do which duty. Pure: every replica computes the same from the same facts.

Who has a duty keeps it, as long as nobody has two more than another who could take one over. Facts that
differ for a moment do no harm: a duty is taken by compare-and-set, and given up only to somebody alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

__all__ = ["share_out"]

_MORE: Final = 2
"""How many more duties than another a replica must have to give one up."""

Id = TypeVar("Id", bound="UUID | str | int")


def share_out(holders: Mapping[str, Id | None], able: Mapping[Id, frozenset[str]]) -> dict[str, Id]:
    """Return who shall have each duty; those that nobody can do are left out.

    `holders`: who has each now, dead or alive; `able`: the live replicas, with the duties that they can do.
    """
    shares = {
        duty: holder
        for duty, holder in holders.items()
        if holder is not None and duty in able.get(holder, frozenset())
    }
    loads = dict.fromkeys(able, 0)
    for holder in shares.values():
        loads[holder] += 1
    for duty in sorted(holders.keys() - shares.keys()):
        found = _idlest(duty, able, loads)
        if found is not None:
            shares[duty] = found
            loads[found] += 1
    while (move := _move(shares, able, loads)) is not None:
        duty, to = move
        loads[shares[duty]] -= 1
        loads[to] += 1
        shares[duty] = to
    return shares


def _move(
    shares: Mapping[str, Id], able: Mapping[Id, frozenset[str]], loads: Mapping[Id, int]
) -> tuple[str, Id] | None:
    """Return a duty that is better done by another one; each such move makes the loads more even."""
    for duty in sorted(shares):
        idlest = _idlest(duty, able, loads)
        if idlest is not None and loads[shares[duty]] - loads[idlest] >= _MORE:
            return duty, idlest
    return None


def _idlest(duty: str, able: Mapping[Id, frozenset[str]], loads: Mapping[Id, int]) -> Id | None:
    candidates = [each for each, can in able.items() if duty in can]
    return min(candidates, key=lambda each: (loads[each], str(each)), default=None)
