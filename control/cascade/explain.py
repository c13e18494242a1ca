"""The plan in words: what is due, what waits and for what. Pure; it decides nothing, it only tells.

What waits for time is what the plan itself says (`missing`). What waits for a fact is not in the plan: it is
found here, by what a conference shall have and has not.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from causeway.api import PlanLink, PlanPlacement, PlanView, StepView, TopologyView, WaitingStep
from control.cascade.plan import missing, topology_of
from control.cascade.view import (
    CreateRoom,
    FetchBridges,
    MoveClients,
    RemoveRoom,
    StartCascade,
    StopCascade,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from causeway.api import BreakerView, LinkEnd
    from control.cascade.topology import Topology
    from control.cascade.view import Action, LinkFacts, PlacementFacts, View

__all__ = ["explain"]

_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")


def explain(
    view: View,
    now: datetime,
    *,
    breakers: Mapping[str, BreakerView],
    next_look_at: datetime | None,
    ends: Sequence[LinkEnd] = (),
) -> PlanView:
    """Return the plan of a view. `breakers`, `next_look_at`: as in PlanView; `ends` of all of its links."""
    steps = missing(view, now)
    topology = topology_of(view, now)
    waiting = [
        WaitingStep(action=_name(action), on=_on(action), until=due, why=_why(view, action))
        for due, action in sorted(steps, key=lambda step: step[0])
        if due > now
    ]
    return PlanView(
        conference=view.conference,
        at=now,
        state=view.state,
        template_version=view.template_version,
        idle_grace=view.idle_grace.total_seconds(),
        topology=TopologyView(
            asked=view.topology.kind,
            used=topology.used,
            reason=topology.reason,
            links=sorted((later, earlier) for earlier, later in topology.edges),
        ),
        placements=[_placement(view, each) for each in view.placements],
        links=[_link(each, topology, ends) for each in view.links],
        due=[StepView(action=_name(action), on=_on(action)) for due, action in steps if due <= now],
        waiting=[*waiting, *_held_up(view, topology, [action for _, action in steps])],
        breakers=dict(breakers),
        next_look_at=next_look_at,
    )


# --- what waits for time ----------------------------------------------------------------------


def _why(view: View, action: Action) -> str:
    """Return why an action that is not due yet is not."""
    match action:
        case CreateRoom(cluster) | MoveClients(cluster):
            return _left_alone(view, cluster) or _retried(_placed(view, cluster))
        case RemoveRoom(cluster):
            placed = _placed(view, cluster)
            if placed is not None and placed.retry_at is not None:
                return _retried(placed)
            return _left_alone(view, cluster) or "nobody is there; somebody may still come"
        case FetchBridges(dialer, listener) | StartCascade(dialer, listener):
            alone = _left_alone(view, listener) or _left_alone(view, dialer)
            return alone or _link_waits(_row(view, dialer, listener))
        case StopCascade(dialer, listener):
            return _left_alone(view, dialer) or _retried(_row(view, dialer, listener))
        case _:
            return "it is its time"


def _left_alone(view: View, cluster: str) -> str:
    facts = view.clusters.get(cluster)
    return f"{cluster} has failed so often that it is left alone" if facts and facts.breaker_open else ""


def _retried(row: PlacementFacts | LinkFacts | None) -> str:
    if row is None or not row.attempts:
        return "it is its time"
    return "it has failed once" if row.attempts == 1 else f"it has failed {row.attempts} times"


def _link_waits(row: LinkFacts | None) -> str:
    if row is None or row.attempts:
        return _retried(row)
    match row.state:
        case "requested":
            return "the dialing side has the order, and is given time to report that the link is up"
        case "down":
            return "the bridge dials again by itself, and is given time to"
        case _:
            return _retried(row)


# --- what waits for a fact --------------------------------------------------------------------


def _held_up(view: View, topology: Topology, planned: list[Action]) -> Iterator[WaitingStep]:
    if view.state == "ending":
        return
    for placement in view.placements:
        if placement.state == "wanted" and not _is_online(view, placement.cluster):
            yield _step(CreateRoom(placement.cluster), f"{placement.cluster} is offline")
    spoken_of = {
        (action.dialer, action.listener)
        for action in planned
        if isinstance(action, FetchBridges | StartCascade)
    }
    for earlier, later in sorted(topology.edges):
        row = _row(view, later, earlier)
        if (later, earlier) in spoken_of or (row is not None and row.state in {"requested", "up"}):
            continue
        yield _step(FetchBridges(later, earlier), _obstacle(view, earlier, later))


def _obstacle(view: View, earlier: str, later: str) -> str:
    for cluster in (earlier, later):
        if not _is_online(view, cluster):
            return f"{cluster} is offline"
    listener, dialer = _placed(view, earlier), _placed(view, later)
    if listener is not None and not listener.has_token:
        return f"the room on {earlier} has reported no token yet"
    if dialer is not None and not dialer.participants:
        return f"nobody has joined on {later} yet"
    for placement in (listener, dialer):
        if placement is not None and _lacks_agent(view, placement):
            return f"no agent of {placement.cluster} has room for the conference"
    return "another link has to be ended first"


def _lacks_agent(view: View, placement: PlacementFacts) -> bool:
    served = any(a.live and a.cluster == placement.cluster and "event" in a.kinds for a in view.agents)
    return served and "event" not in dict(placement.agents)


# --- facts ------------------------------------------------------------------------------------


def _placement(view: View, placement: PlacementFacts) -> PlanPlacement:
    facts = view.clusters.get(placement.cluster)
    return PlanPlacement(
        cluster=placement.cluster,
        region="" if facts is None else facts.region,
        ordinal=placement.ordinal,
        state=placement.state,
        online=_is_online(view, placement.cluster),
        alive=placement.has_token,
        participants=placement.participants,
        empty_since=placement.empty_since,
        displaced=placement.displaced,
        agents={str(kind): agent for kind, agent in placement.agents},
        attempts=placement.attempts,
        retry_at=placement.retry_at,
    )


def _link(link: LinkFacts, topology: Topology, ends: Sequence[LinkEnd]) -> PlanLink:
    clusters = {link.dialer, link.listener}
    return PlanLink(
        dialer=link.dialer,
        listener=link.listener,
        state=link.state,
        since=link.since,
        via=link.via,
        wanted=(link.listener, link.dialer) in topology.edges,
        attempts=link.attempts,
        retry_at=link.retry_at,
        ends=[each for each in ends if {each.cluster, each.figures.peer} == clusters],
    )


def _placed(view: View, cluster: str) -> PlacementFacts | None:
    return next((p for p in view.placements if p.cluster == cluster), None)


def _row(view: View, dialer: str, listener: str) -> LinkFacts | None:
    return next((x for x in view.links if (x.dialer, x.listener) == (dialer, listener)), None)


def _is_online(view: View, cluster: str) -> bool:
    facts = view.clusters.get(cluster)
    return facts is not None and facts.online


def _step(action: Action, why: str) -> WaitingStep:
    return WaitingStep(action=_name(action), on=_on(action), until=None, why=why)


def _name(action: Action) -> str:
    """Return `create-room` for CreateRoom."""
    return _WORD.sub("-", type(action).__name__).lower()


def _on(action: Action) -> dict[str, str]:
    return {each.name: getattr(action, each.name) for each in fields(action)}
