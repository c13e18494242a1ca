"""What is missing in a conference: `plan(view, now)` says it, the executor does it. Pure.

Rooms
    A wanted placement on an online cluster gets its room. A lost one gets nothing: whoever placed it decides
    whether it becomes wanted again.

Links: which, and who dials
    Every pair of placements is linked directly (mesh): a cluster of OWT's kind sends a peer only what is its
    own, never what it received from a third. The later one, by ordinal, dials; so a pair has one link. A
    cluster of a kind that cannot cascade has none; placement keeps a conference within one such cluster.

Links: when
    A bridge is admitted by the room token, and a room has a token only once it is initialised, which happens
    when its first client really joins. The dialing side's bridge needs an initialised room, too: it asks its
    conference node to send what it has. So a link is started when *both* hold, whichever comes last:
      - the earlier room has a token (it is initialised; its bridge can admit somebody), and
      - the later room has a participant (it is initialised; there is somebody to be cascaded for).
    The earlier one's client may well come second: then its token is what was missing. Until then nothing is
    asked, as every try would fail.

Links: how long
    Once asked for, a link is kept while both rooms stand; it is *started* only while somebody is at its
    dialing end. A room closes when its last client leaves, and its token goes; the bridges learn that from
    their cluster. Then the link is forgotten, so that the room's next life starts a new one, with the new
    token. The same goes for a placement that is lost or gone, and for a link that points the wrong way
    because a cluster was lost and placed again with a later ordinal: it is forgotten first, replaced after.
    An offline cluster's links are left as they are: its lease may come back with everything running; if it
    does not, its placement becomes lost.

Time
    Every missing thing has a moment when it becomes due; `plan` is what is due, `next_look` the nearest
    moment of the rest. Both read one list, so nothing that waits for time only can be forgotten. What waits
    for a fact (a report, an executed action) is found when that fact changes the rows and the view is read
    again; so after executing a non-empty plan, the executor looks again at once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Final

from control.cascade.view import CreateRoom, ForgetConference, ForgetLink, RemoveRoom, StartCascade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.cascade.view import Action, LinkFacts, PlacementFacts, View

__all__ = ["LINK_UP_DEADLINE", "REDIAL_GRACE", "next_look", "plan"]

LINK_UP_DEADLINE: Final = timedelta(seconds=10)
"""A requested link that is not reported up by then is asked for again."""

REDIAL_GRACE: Final = timedelta(seconds=5)
"""How long a link may be down before it is asked for again: meanwhile the bridge itself redials, which mends
a broken path; only a peer that came back at another address needs us."""

_AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)


def plan(view: View, now: datetime) -> tuple[Action, ...]:
    """Return what is to be done now: at most one action per room, per pair, per conference."""
    return tuple(action for due, action in _missing(view) if due <= now)


def next_look(view: View, now: datetime) -> datetime | None:
    """Return when, after `now`, the next action becomes due by time alone; None: nothing waits for time."""
    return min((due for due, _ in _missing(view) if due > now), default=None)


def _missing(view: View) -> Iterator[tuple[datetime, Action]]:
    """Yield everything that is missing, each with the moment from which it may be done."""
    if view.state == "ending":
        yield from _ending(view)
        return
    for placement in view.placements:
        if placement.state == "wanted" and _online(view, placement.cluster):
            yield placement.retry_at or _AT_ONCE, CreateRoom(placement.cluster)
    yield from _stale_links(view)
    yield from _wanted_links(view)


def _ending(view: View) -> Iterator[tuple[datetime, Action]]:
    # A wanted placement may have a room, too: the answer to its creation may have been lost. A needless
    # removal is harmless. Rooms take their links with them, the conference's rows the links' rows.
    left = [p for p in view.placements if p.state != "lost" and _online(view, p.cluster)]
    for placement in left:
        yield placement.retry_at or _AT_ONCE, RemoveRoom(placement.cluster)
    if not left:
        yield _AT_ONCE, ForgetConference()


def _stale_links(view: View) -> Iterator[tuple[datetime, Action]]:
    placements = {p.cluster: p for p in view.placements}
    for link in view.links:
        dialer, listener = placements.get(link.dialer), placements.get(link.listener)
        if not (dialer and listener and _may_stand(dialer, listener)):
            yield _AT_ONCE, ForgetLink(link.dialer, link.listener)


def _may_stand(dialer: PlacementFacts, listener: PlacementFacts) -> bool:
    """Whether a link between the two makes sense: both rooms stand, and the later one dials."""
    return (
        "lost" not in (dialer.state, listener.state)
        and dialer.ordinal > listener.ordinal
        and listener.has_token
        and (dialer.has_token or dialer.participants > 0)
    )


def _wanted_links(view: View) -> Iterator[tuple[datetime, Action]]:
    rows = {(link.dialer, link.listener): link for link in view.links}
    usable = sorted(
        (
            p
            for p in view.placements
            if p.state == "ready" and _online(view, p.cluster) and view.clusters[p.cluster].can_cascade
        ),
        key=lambda p: p.ordinal,
    )
    for earlier, later in combinations(usable, 2):
        if not (earlier.has_token and later.participants > 0 and later.ordinal > earlier.ordinal):
            continue
        if (earlier.cluster, later.cluster) in rows:
            continue  # points the wrong way: first it must be forgotten
        row = rows.get((later.cluster, earlier.cluster))
        due = _AT_ONCE if row is None else _due(row, reports=view.clusters[later.cluster].reports_links)
        if due is not None:
            yield due, StartCascade(later.cluster, earlier.cluster)


def _due(link: LinkFacts, *, reports: bool) -> datetime | None:
    """Return from when on the link is to be asked for (again); None: as far as we know it is fine.

    `reports`: whether the dialing cluster reports its links. Where it does not, a request that was taken
    is all that can be known, and a second one would make it connect twice.
    """
    match link.state:
        case "wanted":
            due = _AT_ONCE
        case "requested" if reports:
            due = link.since + LINK_UP_DEADLINE
        case "down":
            due = link.since + REDIAL_GRACE
        case _:
            return None
    return max(due, link.retry_at or _AT_ONCE)


def _online(view: View, cluster: str) -> bool:
    facts = view.clusters.get(cluster)
    return facts is not None and facts.online
