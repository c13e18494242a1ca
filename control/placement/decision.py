"""Decisions: what was chosen, and everything needed to say why. Stored as MessagePack arrays, compactly.

Fields are only ever added at the end: stored decisions of older releases must still be read.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

__all__ = ["Decision", "Placed", "Rejected", "Scored", "pack", "sentence", "unpack"]

NAMED: Final = 8
"""Clusters named at most for each reason; beyond, they are counted."""

Placed: TypeAlias = Literal["region", "group", "distance", "any"]
"""How the cluster relates to the client: in its region; in a region of the same group; the nearest by
distance or latency; whatever there was."""


class Scored(Struct, frozen=True, array_like=True, gc=False):
    """A cluster that could have been taken: its weighted points, and each scorer's share of them."""

    cluster: str
    total: float
    points: dict[str, float]


class Rejected(Struct, frozen=True, array_like=True, gc=False):
    """Clusters that a filter left out for one reason; `clusters` names the first of them."""

    filter: str
    reason: str
    count: int
    clusters: tuple[str, ...]


class Decision(Struct, frozen=True, array_like=True, gc=False):
    """`cluster` is taken, None if nobody can be; `scored` are those compared at the end, best first."""

    cluster: str | None
    placed: Placed
    policy: str
    home: str | None
    """The client's region, if known."""
    considered: int
    scored: tuple[Scored, ...]
    rejected: tuple[Rejected, ...]
    suspect: bool = False
    """Taken although its heartbeat is overdue, for want of another one."""
    user: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Decision)


def pack(decision: Decision) -> bytes:
    """Return the decision as it is stored."""
    return _ENCODER.encode(decision)


def unpack(stored: bytes) -> Decision:
    """Return what was packed, by this release or an older one."""
    return _DECODER.decode(stored)


def sentence(decision: Decision) -> str:
    """Return why nobody can be taken, in words, of bounded length."""
    if decision.considered == 0:
        return "no cluster is registered"
    if not decision.rejected:
        return f"none of {decision.considered} clusters can be taken"
    said = []
    for each in decision.rejected[:NAMED]:
        more = each.count - len(each.clusters)
        names = ", ".join(each.clusters) + (f" and {more} more" if more else "")
        said.append(f"{names}: {each.reason}")
    return "; ".join(said)
