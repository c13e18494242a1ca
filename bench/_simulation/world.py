"""A simulated world for control's planning: virtual time, a seeded network, everything else as it would be.

What decides is real: `control.cascade.plan` with topology and staffing, `control.cascade.breaker`,
`control.agents.telling`, `bridges.control.core`, `lab.report_queue`. What is around it (database, processes,
clusters, bridges, clients) is modelled, each in a file beside this one. This one puts a world together, lets
things happen, waits for quiet, and has it judged. No real clock is read, and all chance comes from one seed:
a run is the same whenever and wherever it is repeated.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bench._simulation.agent import Agent
from bench._simulation.cluster import Cluster, ClusterKind, RefusedError
from bench._simulation.faults import Faults
from bench._simulation.judge import judge
from bench._simulation.kernel import HostGoneError, Kernel
from bench._simulation.network import Network, Patience, Weather
from bench._simulation.people import Person
from bench._simulation.registry import Registry
from bench._simulation.replica import DatabaseAwayError, Replica
from bench._simulation.wire import Wire
from control.cascade.topology import TopologyKind, TopologyWish
from control.placement.facts import Point, distance_km

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.cascade.view import Action

__all__ = ["Outcome", "Plot", "World", "simulate"]

T = TypeVar("T")

_PLACES: Final[tuple[tuple[str, Point], ...]] = (
    ("eu", (50.1, 8.7)),
    ("us", (39.0, -77.5)),
    ("ap", (1.35, 103.8)),
    ("sa", (-23.5, -46.6)),
    ("au", (-33.9, 151.2)),
)
_KINDS: Final[tuple[ClusterKind, ...]] = (
    *("own", "own"),
    *("served", "served", "served"),
    "silent",
    "blind",
)
_LONG_ENOUGH: Final = 90.0
"""Seconds after which a world that is left alone has to be at rest: the longest wait there is (a seat that is
kept for a client who was moved) and the grace of empty rooms after it, and then some."""
_STILL: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What a schedule is to be like. With the seed it says everything."""

    clusters: int = 4
    conferences: int = 2
    people: int = 8
    replicas: int = 2
    seconds: float = 60.0
    """For which things go wrong."""
    topology: TopologyKind | None = None
    """What is asked for, on a wire that relays, by clusters with agents only; None: drawn, as are those."""
    signed_tokens: bool = True
    """Tokens for clusters of our own are signed by control, which is told by them if a room is not there."""
    late_orders: bool = True
    """Clusters carry out orders that control gave up long ago."""
    stale_reports: bool = True
    """Replicas that were frozen, and messages that were slow, have carried out what the sender has given up,
    and has told something newer of elsewhere."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it. No `problems`: all is well."""

    seed: int
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    seconds: float = 0.0
    """Of virtual time."""


class World:
    """Everything there is."""

    refused = RefusedError

    def __init__(self, seed: int, plot: Plot) -> None:
        self.chance = Random(seed)
        self.kernel = Kernel()
        self.outcome = Outcome(seed=seed)
        self.lost_commits = 0.01
        self.database_away = False
        self.stale_reports = plot.stale_reports
        self.signed_tokens = plot.signed_tokens
        self._plot = plot
        self.relaying = self.chance.random() < 0.4 or plot.topology is not None
        self.topology = self._draw_topology()
        self.network = Network(self.kernel, self.chance, self._draw_weather(late_orders=plot.late_orders))
        self.wire = Wire(self.kernel, self.network, self.chance)
        self.registry = Registry(self.kernel, relaying=self.relaying)
        self.registry.on_mark.append(self._notify)
        self.clusters: dict[str, Cluster] = {}
        self.agents: dict[str, Agent] = {}
        self.replicas: list[Replica] = []
        self.seated: dict[str, Person] = {}
        self._told = 0
        self.last_action: tuple[float, str] = (0.0, "")
        for _ in range(plot.replicas):
            self.start_replica()
        for number in range(plot.clusters):
            self._build_cluster(number)
        self._round_trips = {
            (a, b): 1.0 + 0.015 * distance_km(one.location, other.location)
            for (a, one), (b, other) in permutations(self.clusters.items(), 2)
        }
        regions = [region for region, _ in _PLACES[: plot.clusters]]
        self.people = [
            Person(self, f"p{n}", f"room{n % plot.conferences}", self.chance.choice(regions))
            for n in range(plot.people)
        ]

    def _draw_topology(self) -> TopologyWish:
        kinds: tuple[TopologyKind, ...] = ("mesh", "mesh", "tree", "star")
        kind = self.chance.choice(kinds) if self._plot.topology is None else self._plot.topology
        hubs = (self.chance.choice(_PLACES)[0],) if self.chance.random() < 0.5 else ()
        return TopologyWish(kind=kind, degree_limit=self.chance.choice((2, 3, 4)), hubs=hubs)

    def _draw_weather(self, *, late_orders: bool) -> Weather:
        bad = self.chance.choice((0.0, 0.02, 0.1))
        slow = self.chance.choice((0.0, 0.05, 0.2))
        return Weather(loss=bad, duplicates=bad, slow=slow, slowest=12.0 if late_orders else 3.0)

    def _build_cluster(self, number: int) -> None:
        region, (lat, lon) = _PLACES[number % len(_PLACES)]
        kind = self.chance.choice(_KINDS)
        if self._plot.topology is not None or (self.relaying and self.chance.random() < 0.7):
            kind = "served"  # others relay nothing
        name = f"{region}{number}"
        cluster = self.clusters[name] = Cluster(self, name, kind, region, (lat + number / 10, lon))
        cluster.start()
        for n in range(self.chance.choice((1, 2)) if kind == "served" else 0):
            agent = self.agents[f"{name}-agent{n}"] = Agent(self, f"{name}-agent{n}", cluster)
            agent.start()

    # --- what the parts need of each other -----------------------------------------------------------

    def note(self, what: str) -> None:
        """Put it into the trace."""
        self.outcome.trace.append(f"{self.kernel.now:9.3f}  {what}")

    def acted(self, conference: str, action: Action, replica: str) -> None:
        """Take note of an action that is carried out."""
        self.outcome.actions[type(action).__name__] += 1
        self.last_action = (self.kernel.now, f"{conference}: {action}")
        self.note(f"{replica}: {conference}: {action}")

    def start_replica(self) -> None:
        """Start one more replica."""
        replica = Replica(self, f"control{len(self.replicas)}")
        self.replicas.append(replica)
        self.note(f"{replica.name} starts")

    def some_replica(self) -> Replica | None:
        """Return one that runs, as a balancer would."""
        alive = [replica for replica in self.replicas if replica.host.alive]
        return self.chance.choice(alive) if alive else None

    async def ask_control(
        self, place: str, what: Callable[[Registry], T], *, timeout: float, in_time: bool = False
    ) -> T:
        """Ask control from somewhere. `in_time`: nothing is done once nobody waits for it any more.

        Raises what the registry raises, DatabaseAwayError, HostGoneError, and LateError.
        """
        replica = self.some_replica()
        if replica is None:
            await self.kernel.sleep(0.1)
            raise HostGoneError("control is away")
        patience = Patience()

        def unless_given_up(registry: Registry) -> T:
            if patience.over and (in_time or not self.stale_reports):
                raise DatabaseAwayError
            return what(registry)

        return await self.network.call(
            place,
            "control",
            lambda: replica.host,
            lambda: replica.write(unless_given_up),
            timeout=timeout,
            patience=patience,
        )

    def choose(self, conference: str, region: str) -> str | None:
        """Return a cluster for a client: in its region, else where the conference is, else any."""
        there = [name for name in self.clusters if self.registry.online(name)]
        if not there:
            return None
        near = [name for name in there if self.clusters[name].region == region]
        placed = [name for name in there if (conference, name) in self.registry.placements]
        return self.chance.choice(near or placed or there)

    def true_round_trip(self, one: str, other: str) -> float:
        """Return what would be measured between two clusters, in milliseconds."""
        return self._round_trips[one, other] * self.chance.uniform(0.95, 1.2)

    def clients_lost(self, cluster: str) -> None:
        """Have everybody at a cluster lose the connection."""
        for person in self.people:
            if person.at == cluster:
                person.lost()

    def client_lost(self, participant: str) -> None:
        """Have one client lose the connection."""
        person = self.seated.get(participant)
        if person is not None and person.participant == participant:
            person.lost()

    def room_closed(self, cluster: str, conference: str) -> None:
        """Have the agents' bridges of a cluster hear that a room is closed."""
        for agent in self.agents.values():
            if agent.cluster.name == cluster and agent.alive and agent.bridge is not None:
                agent.bridge.room_closed(conference)

    def _notify(self, conference: str) -> None:
        for replica in self.replicas:
            if replica.host.alive and self.chance.random() < 0.9:
                self.kernel.later(self.network.delay(), lambda replica=replica: replica.ring(conference))  # type: ignore[misc]  # bound now

    def _tell_moved(self) -> None:
        told, self._told = self._told, len(self.registry.moved)
        for conference, user, _, to in self.registry.moved[told:]:
            for person in self.people:
                if (person.conference, person.name) == (conference, user):
                    person.told(to)
        self.kernel.later(0.5, self._tell_moved)

    # --- the story ----------------------------------------------------------------------------

    def play(self, plot: Plot) -> Outcome:
        """Let things happen, mend them, wait, and judge."""
        outcome, faults = self.outcome, Faults(self)
        kinds = ", ".join(f"{each.name} ({each.kind})" for each in self.clusters.values())
        self.note(f"clusters {kinds}; {self.topology}, relaying {self.relaying}; {self.network.weather}")
        self._tell_moved()
        faults.run(plot.seconds)
        outcome.steps += self.kernel.run(plot.seconds)
        self.note("— no more harm is done")
        faults.mend()
        self.network.heal()
        outcome.steps += self.kernel.run(plot.seconds + _LONG_ENOUGH)
        self.note("— judged from here on")
        before = outcome.actions.total()
        outcome.steps += self.kernel.run(self.kernel.now + _STILL)
        if outcome.actions.total() > before:
            outcome.problems.append(f"it does not come to rest: {self.last_action[1]}")
        outcome.problems += judge(self)
        outcome.seconds = self.kernel.now
        return outcome


def simulate(seed: int, plot: Plot) -> Outcome:
    """Play one schedule. The same seed and plot give the same outcome, to the last line of the trace."""
    world = World(seed, plot)
    try:
        return world.play(plot)
    except Exception as error:  # noqa: BLE001 - a defect of what is simulated is a finding like any other
        world.outcome.problems.append(f"{type(error).__name__}: {error} (at {_where(error)})")
        return world.outcome
    finally:
        world.kernel.close()


def _where(error: BaseException) -> str:
    trace: Any = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
