"""What control is about to do about a conference, and why it does not do it yet."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import field

from causeway.api.base import Answer
from causeway.api.clusters import BreakerView
from causeway.api.figures import LinkFigures

__all__ = ["LinkEnd", "PlanLink", "PlanPlacement", "PlanView", "StepView", "TopologyView", "WaitingStep"]


class PlanPlacement(Answer, frozen=True, kw_only=True):
    """The conference on one cluster, as planning sees it."""

    cluster: str
    region: str
    ordinal: int
    state: Literal["wanted", "ready", "lost"]
    online: bool
    """Whether the cluster's lease holds: nothing is asked of one that is not online."""
    alive: bool
    """Whether the room has come to life there, so that bridges can be admitted."""
    participants: int
    empty_since: datetime | None
    """Since when nobody is there nor on the way; in the future: until then somebody may be on the way."""
    displaced: int
    """Clients that the cluster's end threw out, and who have not been told another one yet."""
    agents: dict[str, str]
    """Who serves it there, by kind; empty: the cluster's own bridges do."""
    attempts: int
    """Failures since the last success."""
    retry_at: datetime | None


class LinkEnd(Answer, frozen=True, kw_only=True):
    """What the agent at one end of a link measured last, of its events or of its media."""

    cluster: str
    agent: str
    told_at: datetime
    figures: LinkFigures
    """What is zero is left out."""


class PlanLink(Answer, frozen=True, kw_only=True):
    """A cascade, as planning sees it."""

    dialer: str
    listener: str
    state: Literal["wanted", "requested", "up", "down"]
    since: datetime
    via: Literal["driver", "agent"]
    """Whom control tells to dial: the cluster, by its driver, or an agent."""
    wanted: bool
    """Whether the topology has it; one that it has not is being ended."""
    attempts: int
    retry_at: datetime | None
    ends: list[LinkEnd] = field(default_factory=list)
    """What agents measure there; empty where the clusters' own bridges serve it."""


class TopologyView(Answer, frozen=True, kw_only=True):
    """Which clusters are to be linked. `asked`: what the conference's template says."""

    asked: Literal["mesh", "tree", "star"]
    used: Literal["mesh", "tree", "star"]
    reason: str
    """Why it is this one."""
    links: list[tuple[str, str]]
    """(dialer, listener)."""


class StepView(Answer, frozen=True, kw_only=True):
    """One thing that is missing. `action` is `create-room`, for example, `on` what it is done to."""

    action: str
    on: dict[str, str]
    """`cluster`, or `dialer` and `listener`, or `cluster`, `kind` and `agent`; empty: the conference."""


class WaitingStep(StepView, frozen=True, kw_only=True):
    """One that has to wait. `until`: when it is due; None: it waits for a fact, not for time."""

    until: datetime | None
    why: str


class PlanView(Answer, frozen=True, kw_only=True):
    """`GET /v1/conferences/{conference}/plan`: the conference as planning sees it `at` that time.

    `due` is done as soon as the replica that works on the conference comes to it, which is at once.
    """

    conference: str
    at: datetime
    state: Literal["active", "ending"]
    template_version: int
    idle_grace: float
    """Seconds for which a room stands empty."""
    topology: TopologyView
    placements: list[PlanPlacement]
    links: list[PlanLink]
    due: list[StepView]
    waiting: list[WaitingStep]
    breakers: dict[str, BreakerView]
    """Of clusters that have failed the replica that answers, by cluster."""
    next_look_at: datetime | None
    """When a replica looks at the conference again, unless something happens; None: when something does."""
