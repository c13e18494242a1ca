"""A world for plans: clusters and agents as they really are, what control knows of them, and an executor.

What is real changes at once; what control knows comes by reports, which arrive late, twice, and in an order
that holds only within one subject, and by leases that run out. The executor's calls fail, or are done and
their answers lost. Nothing here draws lots: control.cascade's tests do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from control.cascade.plan import next_look, plan
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
    MoveClients,
    PlacementFacts,
    RemoveRoom,
    StartCascade,
    StopCascade,
    UnassignAgent,
    View,
)
from tests.control.planning import NOW, SECOND, asked, served

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Luck", "World"]

Luck: TypeAlias = Literal["done", "failed", "answer lost"]
Pair: TypeAlias = tuple[str, str]

LEASE: Final = 5 * SECOND
SEAT: Final = 20 * SECOND
RETRY: Final = 2 * SECOND


@dataclass
class Room:
    """A room as it really is. It has a token while somebody is in it."""

    people: set[int] = field(default_factory=set)
    life: int = 0
    """Which token it has; 0: none yet."""

    @property
    def token(self) -> int | None:
        return self.life if self.people else None


@dataclass
class Cluster:
    """A cluster, and on the right what control knows of it."""

    name: str
    tells: bool
    """It reports its links, and ends them when told to."""
    alive: bool = True
    reachable: bool = True
    room: Room | None = None
    reports: list[tuple[str, object]] = field(default_factory=list)
    """(subject, what is true of it now), oldest first."""
    start: int = 1

    known_start: int = 1
    lease: datetime = NOW + LEASE
    lost: bool = False
    gone: bool = False

    @property
    def works(self) -> bool:
        return self.alive and self.reachable


@dataclass
class Agent:
    """An agent, and whether control believes that it lives."""

    name: str
    cluster: str
    alive: bool = True
    draining: bool = False
    room: int = 2
    live: bool = True
    reports: list[tuple[Pair, str]] = field(default_factory=list)


@dataclass
class Placement:
    """What control knows of a placement."""

    cluster: str
    ordinal: int
    state: Literal["wanted", "ready", "lost"]
    token: int | None = None
    people: set[int] = field(default_factory=set)
    empty_since: datetime = NOW
    displaced: set[int] = field(default_factory=set)
    agents: dict[str, str] = field(default_factory=dict)
    retry_at: datetime | None = None


@dataclass
class World:
    """One conference in it. `silent`: clusters that tell nothing of their links."""

    names: str
    silent: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    """Clusters with two agents each."""

    def __post_init__(self) -> None:
        self.now = NOW
        self.state: Literal["active", "ending", "gone"] = "active"
        self.clusters = {name: Cluster(name, tells=name not in self.silent) for name in self.names}
        self.agents = {
            f"{name}{n}": Agent(f"{name}{n}", name) for name in sorted(self.served) for n in (1, 2)
        }
        self.placements: dict[str, Placement] = {}
        self.links: dict[Pair, LinkFacts] = {}
        self.ordinal = 0
        self.seats: dict[int, tuple[str, datetime]] = {}
        self.clients = 0
        self.lives = 0
        self.real: dict[Pair, str] = {}
        """Links that carry something, and who dialed: a cluster, or an agent."""
        self.dark = False
        """Nothing gets through from cluster to cluster; who is told to dial now, does so in vain."""
        self.fetched: dict[Pair, tuple[int | None, str]] = {}

    # --- what happens by itself -----------------------------------------------------------------

    def ask(self, name: str) -> int | None:
        """Have a client given a seat there, if control believes in the cluster."""
        if self.state != "active" or not self.online(name):
            return None
        self.clients += 1
        self.seats[self.clients] = (name, self.now + SEAT)
        placement = self.placements.get(name)
        if placement is None:
            self.ordinal += 1
            self.placements[name] = Placement(name, self.ordinal, "wanted", empty_since=self.now)
        return self.clients

    def arrive(self, client: int) -> None:
        """Have a client with a seat come in, if the room is there."""
        name, until = self.seats[client]
        cluster = self.clusters[name]
        if cluster.alive and cluster.room is not None and until > self.now:
            if not cluster.room.people:
                self.lives += 1
                cluster.room.life = self.lives
                self.say(cluster, "room", self.lives)
            cluster.room.people.add(client)
            self.say(cluster, f"client {client}", client)

    def leave(self, name: str, client: int) -> None:
        cluster = self.clusters[name]
        assert cluster.room is not None
        cluster.room.people.discard(client)
        self.say(cluster, f"client {client}", None)
        if not cluster.room.people:
            self.say(cluster, "room", None)
            self.cut(name)

    def crash(self, name: str) -> None:
        cluster = self.clusters[name]
        cluster.alive = False
        cluster.room = None
        cluster.reports.clear()
        self.cut(name)

    def restart(self, name: str) -> None:
        """Have a dead cluster start, and register at once."""
        cluster = self.clusters[name]
        cluster.alive = cluster.reachable = True
        cluster.start += 1
        self.register(cluster)

    def unregister(self, name: str) -> None:
        """Have the cluster leave in good order, with everybody."""
        cluster = self.clusters[name]
        self.crash(name)
        self.lose(cluster)
        cluster.gone = True

    def part(self, name: str) -> None:
        self.clusters[name].reachable = False

    def heal(self, name: str) -> None:
        cluster = self.clusters[name]
        cluster.reachable = True
        if cluster.alive and not self.online(name):
            self.register(cluster)

    def break_link(self, pair: Pair) -> None:
        self.cut_pair(pair)

    def kill_agent(self, name: str) -> None:
        agent = self.agents[name]
        agent.alive = False
        agent.reports.clear()
        for pair, dialer in list(self.real.items()):
            listener = self.placements.get(pair[1])
            if dialer == name or (listener is not None and name in listener.agents.values()):
                self.cut_pair(pair)

    def revive_agent(self, name: str) -> None:
        agent = self.agents[name]
        if not agent.live:
            agent.alive = agent.live = True
            agent.draining = False

    def pass_time(self, seconds: float) -> None:
        held = {name for name in self.names if self.online(name)}
        self.now += timedelta(seconds=seconds)
        for cluster in self.clusters.values():
            if cluster.works and cluster.name in held and cluster.start == cluster.known_start:
                cluster.lease = self.now + LEASE
            elif not cluster.gone and not cluster.lost and cluster.lease <= self.now - LEASE:
                self.lose(cluster)
        for agent in self.agents.values():
            agent.live = agent.alive and (agent.live or seconds == 0)
        self.seats = {client: seat for client, seat in self.seats.items() if seat[1] > self.now}

    # --- reports --------------------------------------------------------------------------------

    def say(self, cluster: Cluster, subject: str, truth: object) -> None:
        cluster.reports.append((subject, truth))

    def deliver(self, name: str, subject: str, *, again: bool = False) -> None:
        """Bring the oldest report on the subject to control; `again`: its answer is lost, it comes twice."""
        cluster = self.clusters[name]
        if not cluster.reachable or not self.online(name) or cluster.start != cluster.known_start:
            return
        at = next(n for n, (about, _) in enumerate(cluster.reports) if about == subject)
        _, truth = cluster.reports[at] if again else cluster.reports.pop(at)
        if subject == "room":
            self.room_reported(name, truth)
        elif subject.startswith("client"):
            self.client_reported(name, int(subject.split()[1]), there=truth is not None)
        else:
            self.link_reported((name, subject.split()[1]), str(truth), via="driver")

    def deliver_of_agent(self, name: str) -> None:
        agent = self.agents[name]
        pair, truth = agent.reports.pop(0)
        self.link_reported(pair, truth, via="agent")

    def room_reported(self, name: str, token: object) -> None:
        if token is None:
            placement = self.placements.get(name)
            if placement is not None:
                placement.token = None
                self.nobody(placement)
                self.want(name)
        elif (placed := self.ensure_ready(name)) is not None:
            assert isinstance(token, int)
            if placed.token not in {None, token}:
                self.want(name)
            placed.token = token

    def client_reported(self, name: str, client: int, *, there: bool) -> None:
        if there:
            placed = self.ensure_ready(name)
            if placed is not None:
                placed.people.add(client)
                self.seats.pop(client, None)
        elif (placement := self.placements.get(name)) is not None and client in placement.people:
            placement.people.discard(client)
            placement.empty_since = self.now

    def ensure_ready(self, name: str) -> Placement | None:
        if self.state == "gone":
            return None
        placement = self.placements.get(name)
        if placement is None:
            self.ordinal += 1
            placement = Placement(name, self.ordinal, "ready", empty_since=self.now)
            self.placements[name] = placement
        elif placement.state != "ready":
            placement.state, placement.retry_at = "ready", None
        return placement

    def link_reported(self, pair: Pair, truth: str, *, via: Literal["driver", "agent"]) -> None:
        row = self.links.get(pair)
        if row is None:
            ends = [self.placements.get(end) for end in pair]
            if truth == "up" and via == "driver" and all(ends) and self.ordinals(pair):
                self.links[pair] = LinkFacts(
                    dialer=pair[0], listener=pair[1], state="up", since=self.now, via=via
                )
        elif row.via != via:
            return
        elif truth == "up":
            self.links[pair] = replace(row, state="up", since=self.now, attempts=0, retry_at=None)
        elif row.state in {"requested", "up"}:
            self.links[pair] = replace(row, state="down", since=self.now)

    def ordinals(self, pair: Pair) -> bool:
        dialer, listener = (self.placements[end] for end in pair)
        return dialer.ordinal > listener.ordinal

    # --- registrations --------------------------------------------------------------------------

    def online(self, name: str) -> bool:
        """Say whether control believes in the cluster."""
        cluster = self.clusters[name]
        return not cluster.lost and not cluster.gone and cluster.lease > self.now

    def register(self, cluster: Cluster) -> None:
        name, placement = cluster.name, self.placements.get(cluster.name)
        if cluster.start != cluster.known_start:
            cluster.reports.clear()
            if placement is not None:
                self.displace(placement)
                placement.state, placement.token, placement.retry_at = "wanted", None, None
        elif placement is not None:
            placement.displaced.clear()
            if placement.state == "lost":
                placement.state = "ready" if cluster.room is not None else "wanted"
                placement.empty_since = self.now  # who is there is about to be reported
        cluster.known_start, cluster.lost, cluster.gone = cluster.start, False, False
        cluster.lease = self.now + LEASE
        self.want(name)
        # It says everything anew, after what it could not say.
        if cluster.room is not None:
            self.say(cluster, "room", cluster.room.token)
            for client in sorted(cluster.room.people):
                self.say(cluster, f"client {client}", client)
            for pair in self.real:
                if pair[0] == name and cluster.tells and self.real[pair] == name:
                    self.say(cluster, f"link {pair[1]}", "up")

    def lose(self, cluster: Cluster) -> None:
        cluster.lost = True
        placement = self.placements.get(cluster.name)
        if placement is not None:
            self.displace(placement)
            placement.state, placement.token, placement.retry_at = "lost", None, None
        self.want(cluster.name)

    def displace(self, placement: Placement) -> None:
        placement.displaced |= placement.people
        self.nobody(placement)

    def nobody(self, placement: Placement) -> None:
        if placement.people:
            placement.people.clear()
            placement.empty_since = self.now

    def want(self, name: str) -> None:
        for pair, row in self.links.items():
            if name in pair:
                self.links[pair] = replace(
                    row, state="wanted", since=self.now, attempts=0, retry_at=None, bridges_at=None
                )

    # --- links as they are ------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        for pair in [pair for pair in self.real if name in pair]:
            self.cut_pair(pair)

    def cut_pair(self, pair: Pair) -> None:
        who = self.real.pop(pair)
        cluster = self.clusters.get(who)
        if cluster is None:
            if self.agents[who].alive:
                self.agents[who].reports.append((pair, "down"))
        elif cluster.alive and cluster.tells:
            self.say(cluster, f"link {pair[1]}", "down")

    def dial(self, pair: Pair, who: str) -> None:
        """Have `who` connect; told again while it is connected, it says so again."""
        dialer, listener = (self.clusters[end] for end in pair)
        token, address = self.fetched[pair]
        ready = dialer.room is not None and dialer.room.token is not None and not self.dark
        if not ready or not token or listener.room is None or listener.room.token != token:
            return
        if address != self.address(pair[1]):
            return
        assert (pair[1], pair[0]) not in self.real
        self.real[pair] = who
        if who in self.agents:
            self.agents[who].reports.append((pair, "up"))
        elif dialer.tells:
            self.say(dialer, f"link {pair[1]}", "up")

    def address(self, name: str) -> str:
        """Return where the cluster's bridges are now."""
        placement = self.placements.get(name)
        agent = placement.agents.get("event") if placement is not None else None
        if agent is not None and self.agents[agent].alive:
            return agent
        return f"{name} {self.clusters[name].start}"

    def agents_follow(self) -> None:
        """Have every agent that lives do what the rows say."""
        for pair, who in list(self.real.items()):
            if who in self.agents and pair not in self.orders(who):
                self.cut_pair(pair)
        for agent in self.agents.values():
            for pair in self.orders(agent.name) if agent.alive else ():
                if pair not in self.real:
                    self.dial(pair, agent.name)

    def orders(self, agent: str) -> list[Pair]:
        return [
            pair
            for pair, row in self.links.items()
            if row.via == "agent"
            and row.state != "wanted"
            and pair[0] in self.placements
            and self.placements[pair[0]].agents.get("event") == agent
        ]

    # --- planning and doing -----------------------------------------------------------------------

    def view(self) -> View:
        return View(
            conference="c",
            state="ending" if self.state == "ending" else "active",
            placements=tuple(self.facts(p) for p in self.placements.values()),
            links=tuple(self.links.values()),
            clusters={
                name: ClusterFacts(
                    id=name, online=self.online(name), reports_links=cluster.tells, gone=cluster.gone
                )
                for name, cluster in self.clusters.items()
                if name in self.placements
            },
            agents=tuple(
                AgentFacts(
                    id=agent.name,
                    cluster=agent.cluster,
                    kinds=frozenset({"event", "media"}),
                    live=agent.live,
                    room=agent.room,
                    draining=agent.draining,
                )
                for agent in self.agents.values()
            ),
        )

    def facts(self, placement: Placement) -> PlacementFacts:
        expected = [until for name, until in self.seats.values() if name == placement.cluster]
        return PlacementFacts(
            cluster=placement.cluster,
            ordinal=placement.ordinal,
            state=placement.state,
            has_token=placement.token is not None,
            participants=len(placement.people),
            empty_since=None if placement.people else max([placement.empty_since, *expected]),
            displaced=len(placement.displaced),
            agents=tuple((kind, name) for kind, name in placement.agents.items()),  # type: ignore[misc]  # a kind each
            retry_at=placement.retry_at,
        )

    def execute(self, view: View, action: Action, luck: Luck) -> None:  # noqa: C901 - a case each
        """Do it, with this luck if a cluster is asked; one that does not work never does it."""
        called = asked(view, action)
        assert all(self.online(name) for name in called)
        if not all(self.clusters[name].works for name in called):
            luck = "failed"
        elif not called:
            luck = "done"
        match action:
            case CreateRoom(name):
                self.create(self.placements[name], luck)
            case RemoveRoom(name):
                self.remove(self.placements[name], luck)
            case ForgetPlacement(name):
                self.forget(self.placements[name])
            case MoveClients(name):
                self.move(self.placements[name])
            case FetchBridges() | StartCascade():
                self.do_link(view, action, (action.dialer, action.listener), luck)
            case StopCascade():
                self.stop((action.dialer, action.listener), luck)
            case ForgetLink():
                self.links.pop((action.dialer, action.listener), None)
            case AssignAgent() | UnassignAgent():
                self.staff(action)
            case ForgetConference():
                self.state = "gone"
                self.placements.clear()
                self.links.clear()

    def staff(self, action: AssignAgent | UnassignAgent) -> None:
        agents = self.placements[action.cluster].agents
        if isinstance(action, AssignAgent):
            agents[action.kind] = action.agent
        elif agents.get(action.kind) == action.agent:
            del agents[action.kind]
        self.want(action.cluster)

    def create(self, placement: Placement, luck: Luck) -> None:
        cluster = self.clusters[placement.cluster]
        if luck != "failed" and cluster.room is None:
            cluster.room = Room()
        if luck == "done":
            placement.state, placement.retry_at = "ready", None
        else:
            placement.retry_at = self.now + RETRY

    def remove(self, placement: Placement, luck: Luck) -> None:
        placement.state, placement.token = "wanted", None
        if luck != "failed":
            self.close(self.clusters[placement.cluster])
        if luck == "done":
            self.forget(placement)
        else:
            placement.retry_at = self.now + RETRY

    def move(self, placement: Placement) -> None:
        elsewhere = [name for name in self.names if self.online(name)]
        if elsewhere:
            for _ in placement.displaced:
                self.ask(elsewhere[0])
            placement.displaced.clear()
        placement.retry_at = None if elsewhere else self.now + RETRY

    def close(self, cluster: Cluster) -> None:
        if cluster.room is not None and cluster.room.people:
            for client in sorted(cluster.room.people):
                self.say(cluster, f"client {client}", None)
            self.say(cluster, "room", None)
        cluster.room = None
        self.cut(cluster.name)

    def forget(self, placement: Placement) -> None:
        del self.placements[placement.cluster]
        for pair in [pair for pair in self.links if placement.cluster in pair]:
            del self.links[pair]

    def do_link(self, view: View, action: FetchBridges | StartCascade, pair: Pair, luck: Luck) -> None:
        dialer, listener = pair
        assert (listener, dialer) not in self.links
        new = LinkFacts(dialer=dialer, listener=listener, state="wanted", since=self.now)
        row = self.links.get(pair, new)
        failed = replace(
            row,
            state="wanted",
            bridges_at=None,
            attempts=row.attempts + 1,
            retry_at=self.now + RETRY,
        )
        if isinstance(action, FetchBridges):
            self.fetched[pair] = (self.placements[listener].token, self.address(listener))
            found = replace(row, state="wanted", bridges_at=self.now, retry_at=None)
            self.links[pair] = found if luck == "done" else failed
        elif served(view, dialer):
            self.links[pair] = replace(
                row,
                state="requested",
                since=self.now,
                via="agent",
                bridges_at=None,
                retry_at=None,
                orders=row.orders + 1,
            )
        else:
            if luck != "failed":
                self.dial(pair, dialer)
                if pair not in self.real and not self.clusters[dialer].tells:
                    luck = "failed"  # such a cluster answers when it is connected
            taken = replace(row, state="requested", since=self.now, bridges_at=None, retry_at=None)
            told = taken if luck == "done" else failed
            self.links[pair] = replace(told, via="driver", orders=row.orders + 1)

    def stop(self, pair: Pair, luck: Luck) -> None:
        row = self.links.get(pair)
        assert row is not None
        cluster = self.clusters[pair[0]]
        if row.via == "driver" and row.orders and cluster.tells:
            if luck != "failed" and self.real.get(pair) == pair[0]:
                self.cut_pair(pair)
            if luck != "done":
                self.links[pair] = replace(row, attempts=row.attempts + 1, retry_at=self.now + RETRY)
                return
        del self.links[pair]

    # --- quiet --------------------------------------------------------------------------------------

    def settle(self) -> Counter[Action]:
        """Let everything that is under way arrive, and the executor run without losses, until nothing waits.

        Returns what was done. Raises AssertionError when it does not come to rest.
        """
        done: Counter[Action] = Counter()
        self.dark = False
        for _ in range(300):
            self.deliver_all()
            view = self.view()
            actions = plan(view, self.now) if self.state != "gone" else ()
            if not any(map(self.online, self.names)):
                # Until a cluster comes, nobody can be told where to go, however often it is tried.
                actions = tuple(action for action in actions if not isinstance(action, MoveClients))
            for action in actions:
                self.execute(view, action, "done")
            done.update(actions)
            self.agents_follow()
            if actions or any(self.deliverable()):
                continue
            moments = [
                self.now + 2 * LEASE
                for c in self.clusters.values()
                if not c.works and not c.lost and not c.gone
            ]
            moments += [self.now + SECOND for agent in self.agents.values() if agent.live and not agent.alive]
            look = next_look(view, self.now) if self.state != "gone" else None
            moments += [look] if look is not None and any(map(self.online, self.names)) else []
            if not moments:
                return done
            assert min(moments) > self.now
            self.pass_time((min(moments) - self.now).total_seconds())
        raise AssertionError(f"it does not come to rest: {done.most_common(5)}")

    def deliver_all(self) -> None:
        for cluster in self.clusters.values():
            if cluster.works and not self.online(cluster.name) and not cluster.gone:
                self.register(cluster)
        for cluster in self.deliverable():
            while cluster.reports:
                self.deliver(cluster.name, cluster.reports[0][0])
        for agent in self.agents.values():
            while agent.reports:
                self.deliver_of_agent(agent.name)

    def deliverable(self) -> Iterable[Cluster]:
        return [c for c in self.clusters.values() if c.reports and c.reachable and self.online(c.name)]
