"""What tests of planning share: views in a few words, and what an action is about and does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from control.cascade.view import (
    Action,
    AgentFacts,
    AssignAgent,
    ClusterFacts,
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    LinkFacts,
    LinkState,
    MoveClients,
    PlacementFacts,
    PlacementState,
    RemoveRoom,
    StartCascade,
    StopCascade,
    UnassignAgent,
    Via,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from control.cascade.view import AgentKind

__all__ = [
    "NOW",
    "SECOND",
    "agent",
    "asked",
    "done",
    "linked",
    "placed",
    "seen",
    "served",
    "subject",
]

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def placed(
    cluster: str,
    ordinal: int,
    state: PlacementState = "ready",
    *,
    token: bool = True,
    participants: int = 1,
    retry_at: datetime | None = None,
    empty: float | None = None,
    displaced: int = 0,
    agents: tuple[tuple[AgentKind, str], ...] = (),
) -> PlacementFacts:
    """`empty`: for how many seconds."""
    return PlacementFacts(
        cluster=cluster,
        ordinal=ordinal,
        state=state,
        has_token=token,
        participants=participants,
        retry_at=retry_at,
        empty_since=None if empty is None else NOW - empty * SECOND,
        displaced=displaced,
        agents=agents,
    )


def linked(
    state: LinkState,
    *,
    ago: float = 0.0,
    dialer: str = "b",
    listener: str = "a",
    retry_at: datetime | None = None,
    fetched: float | None = None,
    via: Via = "driver",
    orders: int = 0,
) -> LinkFacts:
    """`fetched`: how many seconds ago."""
    return LinkFacts(
        dialer=dialer,
        listener=listener,
        state=state,
        since=NOW - ago * SECOND,
        retry_at=retry_at,
        bridges_at=None if fetched is None else NOW - fetched * SECOND,
        via=via,
        orders=orders,
    )


def agent(
    name: str,
    cluster: str,
    *kinds: AgentKind,
    live: bool = True,
    room: int = 10,
    draining: bool = False,
) -> AgentFacts:
    """Of kinds event and media, if none are given."""
    return AgentFacts(
        id=name,
        cluster=cluster,
        kinds=frozenset(kinds or ("event", "media")),
        live=live,
        room=room,
        draining=draining,
    )


def seen(
    *placements: PlacementFacts,
    links: Iterable[LinkFacts] = (),
    offline: Iterable[str] = (),
    silent: Iterable[str] = (),
    state: Literal["active", "ending"] = "active",
    agents: Iterable[AgentFacts] = (),
) -> View:
    """Return a view whose clusters are those of the placements."""
    clusters = {
        p.cluster: ClusterFacts(
            id=p.cluster, online=p.cluster not in set(offline), reports_links=p.cluster not in set(silent)
        )
        for p in placements
    }
    return View(
        conference="c",
        state=state,
        placements=placements,
        links=tuple(links),
        clusters=clusters,
        agents=tuple(agents),
    )


def served(view: View, cluster: str) -> bool:
    """Say whether the cluster is served by agents."""
    return any(a.live and a.cluster == cluster and "event" in a.kinds for a in view.agents)


def subject(action: Action) -> Any:
    """Return what at most one action at a time is about."""
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster) | ForgetPlacement(cluster):
            return ("room", cluster)
        case MoveClients(cluster):
            return ("clients", cluster)
        case FetchBridges(dialer, listener) | StartCascade(dialer, listener):
            return ("pair", *sorted((dialer, listener)))
        case StopCascade(dialer, listener) | ForgetLink(dialer, listener):
            return ("row", dialer, listener)
        case AssignAgent(cluster, kind) | UnassignAgent(cluster, kind):
            return ("agent", cluster, kind)
        case ForgetConference():
            return ("conference",)


def asked(view: View, action: Action) -> tuple[str, ...]:
    """Return the clusters that are called by it."""
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return (cluster,)
        case FetchBridges(_, listener):
            return () if served(view, listener) else (listener,)
        case StartCascade(dialer, _):
            return () if served(view, dialer) else (dialer,)
        case StopCascade(dialer, listener):
            row = next(x for x in view.links if (x.dialer, x.listener) == (dialer, listener))
            return () if row.via == "agent" else (dialer,)
        case _:
            return ()


def done(view: View, action: Action, now: datetime) -> View | None:  # noqa: PLR0911 - a case each
    """Return the view after an action that succeeded; None: there is no conference any more."""
    match action:
        case CreateRoom(cluster):
            return _placement(view, cluster, state="ready", attempts=0, retry_at=None)
        case MoveClients(cluster):
            return _placement(view, cluster, displaced=0, retry_at=None)
        case RemoveRoom(cluster) | ForgetPlacement(cluster):
            return replace(
                view,
                placements=tuple(p for p in view.placements if p.cluster != cluster),
                links=tuple(x for x in view.links if cluster not in (x.dialer, x.listener)),
            )
        case FetchBridges(dialer, listener):
            new = LinkFacts(dialer=dialer, listener=listener, state="wanted", since=now)
            row = next((x for x in view.links if (x.dialer, x.listener) == (dialer, listener)), new)
            return _link(view, replace(row, state="wanted", since=now, bridges_at=now, retry_at=None))
        case StartCascade(dialer, listener):
            via: Via = "agent" if served(view, dialer) else "driver"
            row = LinkFacts(dialer=dialer, listener=listener, state="requested", since=now, via=via)
            return _link(view, row)
        case StopCascade(dialer, listener) | ForgetLink(dialer, listener):
            return replace(view, links=_others(view, dialer, listener))
        case AssignAgent(cluster, kind, name):
            return _agents(view, cluster, lambda has: (*has, (kind, name)), now)
        case UnassignAgent(cluster, kind, name):
            return _agents(view, cluster, lambda has: tuple(x for x in has if x != (kind, name)), now)
        case ForgetConference():
            return None


def _placement(view: View, cluster: str, **values: Any) -> View:
    placements = tuple(replace(p, **values) if p.cluster == cluster else p for p in view.placements)
    return replace(view, placements=placements)


def _agents(view: View, cluster: str, change: Any, now: datetime) -> View:
    links = tuple(
        replace(x, state="wanted", since=now, bridges_at=None, retry_at=None)
        if cluster in (x.dialer, x.listener)
        else x
        for x in view.links
    )
    has = next(p.agents for p in view.placements if p.cluster == cluster)
    return replace(_placement(view, cluster, agents=change(has)), links=links)


def _link(view: View, row: LinkFacts) -> View:
    return replace(view, links=(*_others(view, row.dialer, row.listener), row))


def _others(view: View, dialer: str, listener: str) -> tuple[LinkFacts, ...]:
    return tuple(x for x in view.links if (x.dialer, x.listener) != (dialer, listener))
