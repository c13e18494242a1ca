"""What is missing in a conference: `plan(view, now)` says it, the executor does it. Pure.

Rooms
    A wanted placement on an online cluster gets its room. A lost one gets nothing: its clients are moved to
    where there is room, and that is what wants placements. One whose cluster is gone for good is forgotten.

    A placement is *deserted* when nobody was there, and nobody on the way, for the view's grace. Then its
    links are ended and its room is removed. Where it is not known who is there, a room that has a token
    counts as inhabited: it closes with its last client, and then has none.

Links: which, and who dials
    The topology says it (control.cascade.topology), of all placements whose rooms live. The later one, by
    ordinal, dials; so a pair has one link. A cluster of a kind that cannot cascade has none; placement keeps
    a conference within one such cluster.

Links: when
    A bridge is admitted by the room token, and a room has a token only once it is initialised, which happens
    when its first client really joins. The dialing side's bridge needs an initialised room, too: it asks its
    conference node to send what it has. So a link is started when *both* hold, whichever comes last:
      - the earlier room has a token (it is initialised; its bridge can admit somebody), and
      - the later room has a participant (it is initialised; there is somebody to be cascaded for). Where
        rooms relay, its token will do: there may be others behind it.
    The earlier one's client may well come second: then its token is what was missing. Until then nothing is
    asked, as every try would fail.

    Starting takes two steps, so that a slow listener and a slow dialer are told apart: fetching the
    listener's addresses, then the order to the dialer. Bridges restart; what was fetched is used at once.

Links: how long
    Once asked for, a link is kept while both rooms stand and the topology has it; it is *started* only while
    somebody is at its dialing end. A room closes when its last client leaves, and its token goes; the bridges
    learn that from their cluster. Then the link is forgotten, so that the room's next life starts a new one,
    with the new token. The same goes for a placement that is lost or gone. One that both ends could go on
    with, and that nobody wants any more, is ended before anything takes its place; so is one that the cluster
    was told to make, and that its agents, who came later, are to make now.
    An offline cluster's links are left as they are: its lease may come back with everything running; if it
    does not, its placement becomes lost.

Who is not asked
    A cluster that is offline, or left alone because it failed too often. That holds up what needs this
    cluster, and nothing else.

Time
    Every missing thing has a moment when it becomes due; `plan` is what is due, `next_look` the nearest
    moment of the rest, or when a placement becomes deserted. Both read one list (`missing`), so nothing that
    waits for time only can be forgotten. What waits for a fact (a report, an executed action) is found when
    that fact changes the rows and the view is read again; so after executing a non-empty plan, the executor
    looks again at once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from control.cascade.staffing import Staffing
from control.cascade.topology import Node, Topology, edges
from control.cascade.view import (
    CreateRoom,
    FetchBridges,
    ForgetConference,
    ForgetLink,
    ForgetPlacement,
    MoveClients,
    RemoveRoom,
    StartCascade,
    StopCascade,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.cascade.view import Action, LinkFacts, PlacementFacts, View

__all__ = [
    "BRIDGES_FRESH",
    "LINK_UP_DEADLINE",
    "REDIAL_GRACE",
    "missing",
    "next_look",
    "plan",
    "takes_long",
    "topology_of",
]

LINK_UP_DEADLINE: Final = timedelta(seconds=10)
"""A requested link that is not reported up by then is asked for again."""

REDIAL_GRACE: Final = timedelta(seconds=5)
"""How long a link may be down before it is asked for again: meanwhile the bridge itself redials, which mends
a broken path; only a peer that came back at another address needs us."""

BRIDGES_FRESH: Final = timedelta(seconds=10)
"""How long fetched addresses may wait for the order that they are for."""

_LARGE: Final = 16
"""Clusters of a conference from which on the best tree of them takes more than a few milliseconds."""

_AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)


def plan(view: View, now: datetime) -> tuple[Action, ...]:
    """Return what is to be done now.

    At most one action per room, per pair of clusters, per placement's kind of agent and displaced clients,
    and per conference.
    """
    return tuple(action for due, action in missing(view, now) if due <= now)


def next_look(view: View, now: datetime) -> datetime | None:
    """Return when, after `now`, the next action becomes due by time alone; None: nothing waits for time."""
    look = _Plan(view, now)
    return min((due for due in look.moments() if due > now), default=None)


def missing(view: View, now: datetime) -> tuple[tuple[datetime, Action], ...]:
    """Return everything that is missing, each with the moment from which it may be done.

    What is in the future may be something else by then: what is due now comes first, and changes the view.
    """
    return tuple(_Plan(view, now).missing())


def topology_of(view: View, now: datetime) -> Topology:
    """Return the links that the conference shall have, and why."""
    return _Plan(view, now).topology


def takes_long(view: View) -> bool:
    """Say whether planning takes so long that nothing else should wait for it.

    The shape of a large tree does, tenths of a second for a hundred clusters; it is remembered, so that
    whoever has had `topology_of` work it out elsewhere gets every other answer about the view at once.
    """
    return view.relaying and view.topology.kind == "tree" and len(view.placements) >= _LARGE


class _Plan:
    """One look at one conference."""

    def __init__(self, view: View, now: datetime) -> None:
        self._view = view
        self._now = now
        self._placements = {p.cluster: p for p in view.placements}
        self._standing = [
            p
            for p in view.placements
            if p.state != "lost" and self._can_cascade(p.cluster) and not self._is_deserted(p)
        ]
        self._staff = Staffing(view, self._standing)
        self._living = {p.cluster: p for p in self._standing if p.state == "ready" and self._lives(p)}
        self.topology = edges(
            [self._node(p) for p in self._living.values()],
            view.topology,
            view.round_trips,
            [(link.listener, link.dialer) for link in view.links],
            relaying=view.relaying,
            settled=self._is_settled(),
        )

    def moments(self) -> Iterator[datetime]:
        """Yield when something becomes due, or may begin to be missing, by time alone."""
        yield from (due for due, _ in self.missing())
        if self._view.state == "active":
            yield from filter(None, map(self._deserted_from, self._view.placements))

    def missing(self) -> Iterator[tuple[datetime, Action]]:
        """Yield what is missing, with the moment from which it may be done."""
        if self._view.state == "ending":
            yield from self._ending()
            return
        for placement in self._view.placements:
            if placement.displaced:
                yield placement.retry_at or _AT_ONCE, MoveClients(placement.cluster)
        for action in self._staff.actions:
            yield _AT_ONCE, action
        ends = list(self._ends())
        yield from ends
        stopping = {
            end
            for due, action in ends
            if due <= self._now and isinstance(action, StopCascade)
            for end in (action.dialer, action.listener)
        }
        yield from self._rooms(stopping)
        # What is relayed must not come round: no new way is opened while an old one is to be closed.
        if not stopping or self.topology.used == "mesh":
            yield from self._starts()

    # --- rooms --------------------------------------------------------------------------------

    def _ending(self) -> Iterator[tuple[datetime, Action]]:
        # A wanted placement may have a room, too: the answer to its creation may have been lost. A needless
        # removal is harmless. Rooms take their links with them, the conference's rows the links' rows.
        left = [p for p in self._view.placements if p.state != "lost" and self._is_online(p.cluster)]
        for placement in left:
            yield from self._removal(placement, _AT_ONCE)
        if not left:
            yield _AT_ONCE, ForgetConference()

    def _rooms(self, stopping: set[str]) -> Iterator[tuple[datetime, Action]]:
        """Yield what rooms lack; clusters in `stopping` have links that are to be ended first."""
        for placement in self._view.placements:
            cluster, deserted = placement.cluster, self._deserted_from(placement)
            if placement.state == "lost":
                facts = self._view.clusters.get(cluster)
                if facts is not None and facts.gone and not placement.displaced:
                    yield _AT_ONCE, ForgetPlacement(cluster)
                continue
            if deserted is not None and not (deserted <= self._now and cluster in stopping):
                yield from self._removal(placement, deserted)
            if placement.state == "wanted" and (deserted is None or self._now < deserted):
                callable_from = self._callable_from(cluster)
                if callable_from is not None:
                    yield max(callable_from, placement.retry_at or _AT_ONCE), CreateRoom(cluster)

    def _removal(self, placement: PlacementFacts, due: datetime) -> Iterator[tuple[datetime, Action]]:
        callable_from = self._callable_from(placement.cluster)
        if callable_from is not None:
            yield max(due, callable_from, placement.retry_at or _AT_ONCE), RemoveRoom(placement.cluster)

    def _deserted_from(self, placement: PlacementFacts) -> datetime | None:
        """Return from when on the placement is deserted, as things are; None: it is not, and will not be."""
        facts = self._view.clusters.get(placement.cluster)
        known = facts is not None and (facts.knows_participants or not placement.has_token)
        if not known or placement.empty_since is None or placement.participants or placement.displaced:
            return None
        return placement.empty_since + self._view.idle_grace

    def _is_deserted(self, placement: PlacementFacts) -> bool:
        since = self._deserted_from(placement)
        return since is not None and since <= self._now

    # --- links --------------------------------------------------------------------------------

    def _ends(self) -> Iterator[tuple[datetime, Action]]:
        """Yield the ends of links that are not wanted."""
        for link in self._view.links:
            if link.dialer == link.listener or not self._may_live(link):
                yield _AT_ONCE, ForgetLink(link.dialer, link.listener)
            elif (link.listener, link.dialer) not in self.topology.edges or self._is_taken_over(link):
                told_from = _AT_ONCE if link.via == "agent" else self._callable_from(link.dialer)
                if told_from is not None:
                    yield max(told_from, link.retry_at or _AT_ONCE), StopCascade(link.dialer, link.listener)

    def _may_live(self, link: LinkFacts) -> bool:
        """Say whether both rooms stand, so that there may be a link between them."""
        dialer, listener = (self._placements.get(end) for end in (link.dialer, link.listener))
        return (
            dialer is not None
            and listener is not None
            and "lost" not in (dialer.state, listener.state)
            and listener.has_token
            and self._lives(dialer)
        )

    def _is_taken_over(self, link: LinkFacts) -> bool:
        """Say whether the cluster was told to dial, and now has agents who are to do it instead."""
        return (
            link.via == "driver"
            and link.orders > 0
            and self._staff.served(link.dialer)
            and self._staff.ready(link.dialer)
        )

    def _starts(self) -> Iterator[tuple[datetime, Action]]:
        rows = {(link.dialer, link.listener): link for link in self._view.links}
        for earlier, later in sorted(self.topology.edges):
            if not (self._living[earlier].has_token and self._is_worth_it(later)):
                continue
            if (earlier, later) in rows:
                continue  # points the wrong way: first it must be ended
            row = rows.get((later, earlier))
            due = (
                None if row is not None and self._is_taken_over(row) else self._start_due(row, later, earlier)
            )
            if due is None:
                continue
            fetched = None if row is None else row.bridges_at
            if fetched is not None and max(due, self._now) < fetched + BRIDGES_FRESH:
                yield due, StartCascade(later, earlier)
            else:
                yield due, FetchBridges(later, earlier)

    def _is_worth_it(self, later: str) -> bool:
        placement = self._living[later]
        return self._is_inhabited(placement) or (self.topology.used != "mesh" and placement.has_token)

    def _start_due(self, row: LinkFacts | None, dialer: str, listener: str) -> datetime | None:
        """Return from when on the link is to be asked for (again); None: it is not, as things are."""
        due = _AT_ONCE if row is None else self._row_due(row)
        if due is None:
            return None
        for end in (dialer, listener):
            if not self._is_online(end) or not self._staff.ready(end):
                return None
            if not self._staff.served(end):
                callable_from = self._callable_from(end)
                if callable_from is None:
                    return None
                due = max(due, callable_from)
        return due

    def _row_due(self, link: LinkFacts) -> datetime | None:
        match link.state:
            case "wanted":
                due = _AT_ONCE
            case "requested" if self._is_reported(link):
                due = link.since + LINK_UP_DEADLINE
            case "down":
                due = link.since + REDIAL_GRACE
            case _:
                return None
        return max(due, link.retry_at or _AT_ONCE)

    def _is_reported(self, link: LinkFacts) -> bool:
        """Say whether the dialing side tells how the link is.

        Where it does not, a request that was taken is all that can be known, and a second one would make it
        connect twice.
        """
        return link.via == "agent" or self._view.clusters[link.dialer].reports_links

    # --- facts --------------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        """Say whether nothing is being mended, so that what works may be changed for the better."""
        return all(
            self._is_online(link.dialer)
            and self._is_online(link.listener)
            and (link.state == "up" or (link.state == "requested" and not self._is_reported(link)))
            for link in self._view.links
        )

    def _lives(self, placement: PlacementFacts) -> bool:
        """Say whether the room is initialised."""
        return placement.has_token or placement.participants > 0

    def _is_inhabited(self, placement: PlacementFacts) -> bool:
        return placement.participants > 0 or (
            placement.has_token and not self._view.clusters[placement.cluster].knows_participants
        )

    def _is_online(self, cluster: str) -> bool:
        facts = self._view.clusters.get(cluster)
        return facts is not None and facts.online

    def _can_cascade(self, cluster: str) -> bool:
        facts = self._view.clusters.get(cluster)
        return facts is not None and facts.can_cascade

    def _callable_from(self, cluster: str) -> datetime | None:
        """Return from when on the cluster may be asked something; None: not as things are."""
        facts = self._view.clusters.get(cluster)
        if facts is None or not facts.online:
            return None
        return facts.breaker_until if facts.breaker_open else _AT_ONCE

    def _node(self, placement: PlacementFacts) -> Node:
        facts = self._view.clusters[placement.cluster]
        return Node(
            cluster=placement.cluster,
            ordinal=placement.ordinal,
            region=facts.region,
            location=facts.location,
            can_relay=self._staff.relays(placement.cluster),
        )
