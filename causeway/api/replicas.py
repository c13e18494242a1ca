"""Replicas of control, as operators see them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from causeway.api.base import Answer

__all__ = ["ReplicaList", "ReplicaView"]


class ReplicaView(Answer, frozen=True, kw_only=True):
    """One process of control."""

    id: str
    """Drawn at each start."""
    name: str
    """The host's, unless the settings say otherwise."""
    version: str
    revision: str
    """The newest revision of the database's schema that it knows."""
    state: Literal["alive", "gone", "stopped"]
    """`gone`: its lease ran out; `stopped`: it said good-bye."""
    started_at: datetime
    last_seen_at: datetime
    duties: list[str]
    """What it does for all of them just now."""
    conferences: int
    """Those that it is working on just now."""


class ReplicaList(Answer, frozen=True, kw_only=True):
    """`GET /v1/replicas`: those that are there and those that were lately, the youngest first."""

    replicas: list[ReplicaView]
