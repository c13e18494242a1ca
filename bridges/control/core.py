"""What an agent does with its desired state: a pure state machine. No socket, no clock, no task.

Control says which links there shall be (causeway.channel); the bridges are told to dial and to hang up; what
they see is reported. Inputs are `connected`, `disconnected`, `receive`, `leg_changed`, `refused`,
`heartbeat` and `handle_timer`; those that ask for something return it, to be done in this order. Time is an
argument, in seconds of any clock that does not jump.

The rules
    - The last state that was taken is acted on until another one is: losing control, for however long,
      changes nothing. A new connection says which version that is.
    - The first state of a connection is control's word, whatever its number: its database may have been set
      back. After it, numbers grow; a message with an old one came twice or late, and is passed over. A Delta
      that fits no version we have is answered by a Resync, once until a Desired comes.
    - What can be done of a state is done. What cannot (no token, no address) is refused with the reason,
      and is tried again whenever a later state changes anything.
    - A link is in legs, one for each kind of bridge. A leg is dialled once for each (token, address,
      attempt); then its bridge keeps it up by itself. A bridge that has given a leg up, because its room is
      closed, is told again after a pause, for as long as the link is desired: the room may open again.
    - Which links of a conference pass on what they bring is said after those that end and before those that
      are dialled, so that no link carries what an older shape would have had it carry.
    - A changed link is reported at once, with whatever else changed in the same instant; another reason for
      being down, with the next heartbeat. The first state of a connection, and each Desired, is followed by
      a report of everything.

A leg that we dial
    desired                  → Dial                 and nothing is known of it
    bridge: up, down         → reported             the bridge redials by itself
    bridge: gone             → reported as down     Dial again after a growing pause
    other token or address,
    or another attempt       → Dial                 the bridge replaces what it has, or hurries
    not desired any more     → HangUp               what it still says is of no interest
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridges.control.orders import Dial, HangUp, Leave, Leg, Link, Relay, Say
from bridges.control.sightings import Sightings
from causeway.backoff import Backoff
from causeway.channel import (
    Ack,
    Delta,
    Desired,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    Refusal,
    Refuse,
    Resync,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridges.control.orders import Kind, LegState, Output
    from causeway.api.agents import AgentAddress, AgentLoad
    from causeway.channel import Assignment, DesiredLink, FromControl, RoundTrip

__all__ = ["AgentCore"]


class _Retry:
    """When a leg that its bridge has given up is dialled again."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.due: float | None = None


def _backoff() -> Backoff:
    return Backoff(base=0.2, cap=5.0)


class AgentCore:
    """The desired state of one agent's bridges, and what became of it."""

    def __init__(
        self,
        *,
        cluster: str,
        kinds: Iterable[Kind],
        pinned: bool = True,
        max_links: int = 10_000,
        backoff: Callable[[], Backoff] = _backoff,
    ) -> None:
        """Serve `cluster` with bridges of these kinds.

        `pinned`: refuse addresses without a certificate's fingerprint. `max_links`: links that are dialled at
        most, further ones are refused. `backoff` makes the pauses after a bridge has given a leg up.
        """
        self._cluster = cluster
        self._kinds: tuple[Kind, ...] = tuple(kinds)
        self._pinned = pinned
        self._max_links = max_links
        self._backoff = backoff
        self.version: int | None = None
        """Of the state that is acted on; None: there is none."""
        self.unknown = 0
        """Messages of a type that is not known here."""
        self.stale = 0
        """Messages that came twice or late."""
        self._assignments: dict[str, Assignment] = {}
        self._peers: dict[str, frozenset[str]] = {}
        self._wanted: dict[Link, DesiredLink] = {}
        self._ways: dict[str, dict[str, tuple[str, ...]]] = {}
        self._problems: dict[str, list[Refusal]] = {}
        self._dialled: dict[Leg, Dial] = {}
        self._dialling = 0
        self._retries: dict[Leg, _Retry] = {}
        """Of legs that their bridge has given up, until they are up."""
        self._sightings = Sightings(self._legs)
        self._report_at: float | None = None
        # Of the connection to control:
        self._connected = False
        self._in_step = False
        self._asked_resync = False
        self._lease_ends: float | None = None

    # --- what can be seen -------------------------------------------------------------------------

    @property
    def conferences(self) -> int:
        """How many are assigned."""
        return len(self._assignments)

    @property
    def links_wanted(self) -> int:
        """How many links are desired."""
        return len(self._wanted)

    @property
    def links_up(self) -> int:
        """How many of the desired links are up."""
        return sum(self.is_up(conference, peer) for conference, peer in self._wanted)

    def is_up(self, conference: str, peer: str) -> bool:
        """Return whether a link is desired, and up."""
        link = Link(conference, peer)
        described = self._sightings.describe(link) if link in self._wanted else None
        return described is not None and described.state == "up"

    @property
    def in_step(self) -> bool:
        """Whether control is connected and has said what it wants."""
        return self._in_step

    # --- the connection to control ----------------------------------------------------------------

    def connected(self, *, epoch: int, ttl: float, now: float) -> list[Output]:
        """Take note of a new connection, after a registration with this epoch and lease (seconds)."""
        self._connected, self._in_step, self._asked_resync = True, False, False
        self._lease_ends = now + ttl
        return [Say(Hello(epoch=epoch, version=self.version))]

    def disconnected(self) -> None:
        """Take note that the connection is gone; nothing else changes."""
        self._connected = self._in_step = False
        self._lease_ends = self._report_at = None

    def receive(self, message: FromControl | Unknown, now: float) -> list[Output]:
        """Take a message of the present connection."""
        match message:
            case Desired():
                return self._desired(message, now)
            case Delta():
                return self._delta(message, now)
            case LeaseRenewed(ttl=ttl):
                self._lease_ends = now + ttl
                return []
            case Goodbye(reason=reason, retry_after=retry_after):
                return [Leave(reason=reason, retry_after=retry_after)]
            case Unknown():
                self.unknown += 1
                return []

    def heartbeat(self, load: AgentLoad, round_trips: Sequence[RoundTrip]) -> list[Output]:
        """Beat: nothing without a connection."""
        if not self._connected:
            return []
        beat: list[Output] = [Say(Heartbeat(load=load, round_trips=list(round_trips)))]
        return [*beat, *self._news()] if self._in_step else beat

    # --- the bridges ------------------------------------------------------------------------------

    def leg_changed(
        self, kind: Kind, conference: str, peer: str, state: LegState, *, error: str = "", now: float
    ) -> None:
        """Take what a bridge says of a link, ordered or dialled by the peer; `next_timer` may be sooner."""
        leg = Leg(conference, peer, kind)
        self._sightings.see(leg, state, error)
        if leg.link not in self._wanted:
            self._sightings.forget_leg(leg, unless_up=True)
            return
        if state == "up":
            self._retries.pop(leg, None)
        elif state == "gone" and leg in self._dialled:
            retry = self._retries.setdefault(leg, _Retry(self._backoff()))
            if retry.due is None:
                retry.due = now + retry.backoff.next_delay()
        self._note(leg.link, now)

    def refused(self, dial: Dial, reason: str, now: float) -> None:
        """Take note that a bridge did not take an order; it is given again later."""
        if self._dialled.get(dial.leg) is dial:
            self.leg_changed(*_names(dial), "gone", error=reason, now=now)

    # --- time -------------------------------------------------------------------------------------

    def expects(self, peer: str, room: str) -> bool:
        """Return whether the state that is acted on has a link of the conference with this cluster."""
        return peer in self._peers.get(room, ())

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, which may be now; None: nothing waits for time."""
        moments = [retry.due for retry in self._retries.values() if retry.due is not None]
        moments += [moment for moment in (self._report_at, self._lease_ends) if moment is not None]
        return min(moments, default=None)

    def handle_timer(self, now: float) -> list[Output]:
        """Do what is due."""
        outputs: list[Output] = []
        for leg, retry in self._retries.items():
            if retry.due is not None and retry.due <= now:
                retry.due = None
                outputs.append(self._dialled[leg])
        if self._report_at is not None and self._report_at <= now:
            outputs += self._news()
        if self._lease_ends is not None and self._lease_ends <= now:
            self._lease_ends = None
            outputs.append(Leave(reason="control does not renew the lease", retry_after=0.0))
        return outputs

    # --- inside: taking a state -------------------------------------------------------------------

    def _desired(self, message: Desired, now: float) -> list[Output]:
        if self._in_step and self.version is not None and message.version < self.version:
            self.stale += 1
            return []
        told = {each.conference: each for each in message.conferences}
        self.version, self._asked_resync, self._in_step = message.version, False, True
        outputs = self._take(told, self._assignments.keys() - told.keys(), now)
        return [*outputs, self._answer(), self._everything()]

    def _delta(self, message: Delta, now: float) -> list[Output]:
        if message.base != self.version:
            if self._in_step and self.version is not None and message.version <= self.version:
                self.stale += 1
                return []
            asked, self._asked_resync = self._asked_resync, True
            return [] if asked else [Say(Resync())]
        first, self.version, self._in_step = not self._in_step, message.version, True
        outputs = self._take({each.conference: each for each in message.set}, message.drop, now)
        return [*outputs, self._answer(), *([self._everything()] if first else [])]

    def _answer(self) -> Say:
        assert self.version is not None
        problems = [problem for each in self._problems.values() for problem in each]
        if problems:
            return Say(Refuse(version=self.version, problems=problems))
        return Say(Ack(version=self.version))

    def _take(self, told: dict[str, Assignment], dropped: Iterable[str], now: float) -> list[Output]:
        """Act on assignments that are new or changed, and on those that are over.

        Others are not looked at, but for those with problems: what is over may have made room for them.
        """
        over = set(dropped) - told.keys()
        retried = self._problems.keys() - told.keys() - over
        outputs: list[Output] = []
        for conference in sorted(over):
            self._assignments.pop(conference, None)
            outputs += self._serve(conference, {}, now)
        self._assignments |= told
        for conference in (*told, *sorted(retried)):
            links = {link.peer: link for link in self._assignments[conference].links}
            outputs += self._serve(conference, links, now)
        return outputs

    def _serve(self, conference: str, links: dict[str, DesiredLink], now: float) -> list[Output]:
        """Make these the desired links of a conference, by peer."""
        before = self._peers.pop(conference, frozenset())
        dialled = {leg: self._dialled[leg] for peer in before for leg in self._dialled_legs(conference, peer)}
        self._dialling -= len({leg.peer for leg in dialled})
        dials, problems = self._dials(conference, links)
        self._dialling += len({leg.peer for leg in dials})
        self._problems.pop(conference, None)
        if problems:
            self._problems[conference] = problems
        if links:
            self._peers[conference] = frozenset(links)
        outputs = self._hang_up(leg for leg in dialled if leg not in dials)
        outputs += self._relay(conference, links)
        for peer in before - links.keys():
            self._forget(Link(conference, peer))
        self._wanted |= {Link(conference, peer): link for peer, link in links.items()}
        for leg, dial in dials.items():
            if dial != dialled.get(leg):
                self._dialled[leg] = dial
                self._retries.pop(leg, None)
                if self.is_up(*leg.link):  # whoever orders it anew waits to hear that
                    self._sightings.forget_link(leg.link)
                outputs.append(dial)
        for peer in links:
            self._note(Link(conference, peer), now)
        return outputs

    def _dials(self, conference: str, links: dict[str, DesiredLink]) -> tuple[dict[Leg, Dial], list[Refusal]]:
        """Return what is to be dialled for a conference's links, and what cannot be."""
        dials: dict[Leg, Dial] = {}
        problems: list[Refusal] = []
        room = self._max_links - self._dialling
        for peer, link in links.items():
            if link.role != "dial":
                continue
            problem = self._problem(link) or ("too many links" if room <= 0 else None)
            if problem is not None:
                problems.append(Refusal(conference=conference, peer=peer, reason=problem))
                continue
            room -= 1
            for kind, address in self._addresses(link):
                dial = Dial(
                    kind=kind,
                    conference=conference,
                    peer=peer,
                    token=link.token or "",
                    address=address,
                    attempt=link.attempt,
                )
                dials[dial.leg] = dial
        return dials, problems

    def _problem(self, link: DesiredLink) -> str | None:
        """Return why a link cannot be dialled."""
        addresses = self._addresses(link)
        if link.peer == self._cluster:
            return "a cluster does not cascade with itself"
        if not link.token:
            return "there is no token"
        if not addresses:
            return f"there is no address for a bridge of kind {' or '.join(self._kinds)}"
        if self._pinned and not all(address.fingerprint for _, address in addresses):
            return "there is an address without its certificate's fingerprint"
        return None

    def _addresses(self, link: DesiredLink) -> list[tuple[Kind, AgentAddress]]:
        given: dict[Kind, AgentAddress | None] = {"event": link.event, "media": link.media}
        return [(kind, address) for kind in self._kinds if (address := given[kind]) is not None]

    def _dialled_legs(self, conference: str, peer: str) -> list[Leg]:
        return [leg for kind in self._kinds if (leg := Leg(conference, peer, kind)) in self._dialled]

    def _relay(self, conference: str, links: dict[str, DesiredLink]) -> list[Output]:
        """Say which links pass on what they bring, if that is news."""
        ways = {peer: tuple(link.behind) for peer, link in sorted(links.items()) if link.relays}
        if ways == self._ways.get(conference, {}):
            return []
        if ways:
            self._ways[conference] = ways
        else:
            del self._ways[conference]
        return [Relay(kind=kind, conference=conference, ways=ways) for kind in self._kinds]

    def _hang_up(self, legs: Iterable[Leg]) -> list[Output]:
        outputs: list[Output] = []
        for leg in legs:
            del self._dialled[leg]
            self._retries.pop(leg, None)
            outputs.append(HangUp(kind=leg.kind, conference=leg.conference, peer=leg.peer))
        return outputs

    def _forget(self, link: Link) -> None:
        """Drop what is known of a link that is not desired any more, but that a peer may hold."""
        del self._wanted[link]
        self._sightings.forget_link(link)
        for kind in self._kinds:
            self._sightings.forget_leg(Leg(*link, kind), unless_up=True)

    # --- inside: reporting ------------------------------------------------------------------------

    def _legs(self, link: Link) -> list[Leg]:
        """Return the legs that make up a link: those dialled; of one that the peer dials, the events'."""
        if self._wanted[link].role == "dial":
            return self._dialled_legs(*link)
        return [Leg(*link, "event" if "event" in self._kinds else "media")]

    def _note(self, link: Link, now: float) -> None:
        """Report a link, now if it is in another state than was reported."""
        if self._sightings.note(link) and self._in_step:
            self._report_at = now

    def _news(self) -> list[Output]:
        self._report_at = None
        report = self._sightings.news()
        return [] if report is None else [Say(report)]

    def _everything(self) -> Say:
        self._report_at = None
        return Say(self._sightings.everything(self._wanted))


def _names(dial: Dial) -> tuple[Kind, str, str]:
    return dial.kind, dial.conference, dial.peer
