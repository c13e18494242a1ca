"""Filters, then scorers: which clusters may serve a client, and in which order they are tried. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Candidate", "Decision", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cluster, as far as placement cares. Load is what it last reported; `cpu` is 0 to 1."""

    cluster: str
    region: str
    online: bool
    modules: frozenset[str]
    participants: int
    streams: int
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`cluster` is the best, None if there is none; `ranked` all usable ones, best first."""

    cluster: str | None
    ranked: tuple[str, ...]
    rejected: Mapping[str, str]
    """Why each other cluster cannot be taken: cluster id → one short sentence."""


def choose(
    candidates: Iterable[Candidate],
    *,
    region: str | None,
    already: frozenset[str],
    required_modules: frozenset[str],
) -> Decision:
    """Rank the candidates for a client in `region` whose conference is placed on `already`."""
    raise NotImplementedError
