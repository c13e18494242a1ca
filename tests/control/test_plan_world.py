"""Plans in a world where everything goes wrong: after quiet, all hear each other and nothing is left over."""

from __future__ import annotations

from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control.cascade.plan import plan
from tests.control.plan_world import Luck, World

NAMES = "abcd"
LUCK: list[Luck] = ["done", "failed", "answer lost"]
names = st.sampled_from(NAMES)


class PlanWorld(RuleBasedStateMachine):
    """Joins, leaves, crashes, partitions, lost answers, late and doubled reports, agents that come and go."""

    @initialize(
        silent=st.frozensets(st.sampled_from("cd"), max_size=2),
        served=st.frozensets(st.sampled_from("abc"), max_size=3),
        inhabited=st.lists(names, min_size=1, max_size=4),
        ends=st.booleans(),
    )
    def begin(
        self, silent: frozenset[str], served: frozenset[str], inhabited: list[str], *, ends: bool
    ) -> None:
        self.world = World(NAMES, silent=silent - served, served=served)
        self.ends = ends
        for name in inhabited:
            self.client_gets_in(name)

    # Clients.

    @rule(name=names)
    def client_asks(self, name: str) -> None:
        self.world.ask(name)

    @rule(name=names)
    def client_gets_in(self, name: str) -> None:
        """Join without trouble, as far as that is possible."""
        client = self.world.ask(name)
        if client is not None:
            self.executor_runs(["done"], 1)
            self.world.arrive(client)
            self.world.deliver_all()

    @precondition(lambda self: self.world.seats)
    @rule(data=st.data())
    def client_arrives(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(sorted(self.world.seats)))
        if not any(client in c.room.people for c in self.world.clusters.values() if c.room is not None):
            self.world.arrive(client)

    @precondition(lambda self: self.inhabited())
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.inhabited()))
        room = self.world.clusters[name].room
        assert room is not None
        self.world.leave(name, data.draw(st.sampled_from(sorted(room.people))))

    # Clusters and agents.

    @rule(
        name=names, how=st.sampled_from(["crash", "restart", "restart", "part", "heal", "heal", "unregister"])
    )
    def cluster_changes(self, name: str, how: str) -> None:
        cluster = self.world.clusters[name]
        match how:
            case "crash" if cluster.alive:
                self.world.crash(name)
            case "restart" if not cluster.alive:
                self.world.restart(name)
            case "part":
                self.world.part(name)
            case "heal":
                self.world.heal(name)
            case "unregister" if cluster.works and self.world.online(name):
                self.world.unregister(name)

    @precondition(lambda self: self.world.agents)
    @rule(data=st.data(), how=st.sampled_from(["kill", "revive", "drain"]))
    def agent_changes(self, data: st.DataObject, how: str) -> None:
        agent = self.world.agents[data.draw(st.sampled_from(sorted(self.world.agents)))]
        match how:
            case "kill" if agent.alive:
                self.world.kill_agent(agent.name)
            case "revive" if not agent.alive:
                self.world.revive_agent(agent.name)
            case "drain":
                agent.draining = not agent.draining

    @precondition(lambda self: self.breakable())
    @rule(data=st.data())
    def link_breaks(self, data: st.DataObject) -> None:
        self.world.break_link(data.draw(st.sampled_from(self.breakable())))

    @rule(dark=st.booleans())
    def ways_change(self, *, dark: bool) -> None:
        self.world.dark = dark

    # Control.

    @precondition(lambda self: self.spoken())
    @rule(data=st.data(), again=st.booleans())
    def report_arrives(self, data: st.DataObject, again: bool) -> None:
        name = data.draw(st.sampled_from(self.spoken()))
        subjects = sorted({subject for subject, _ in self.world.clusters[name].reports})
        self.world.deliver(name, data.draw(st.sampled_from(subjects)), again=again)

    @rule()
    def agents_work(self) -> None:
        self.world.agents_follow()
        for agent in self.world.agents.values():
            if agent.reports:
                self.world.deliver_of_agent(agent.name)

    @rule(seconds=st.sampled_from([1, 3, 6, 11, 31]))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule(luck=st.lists(st.sampled_from(LUCK), min_size=1, max_size=4), rounds=st.integers(1, 4))
    def executor_runs(self, luck: list[Luck], rounds: int) -> None:
        for _ in range(rounds):
            if self.world.state == "gone":
                return
            view = self.world.view()
            for n, action in enumerate(plan(view, self.world.now)):
                self.world.execute(view, action, luck[n % len(luck)])

    # What must hold.

    @invariant()
    def pairs_are_linked_once(self) -> None:
        for one, other in getattr(self, "world", World("")).real:
            assert one != other
            assert (other, one) not in self.world.real

    @rule(really=st.sampled_from([False, False, False, True]))
    def quiet(self, really: bool) -> None:
        if really:
            self.check_quiet()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.check_quiet()
            if self.ends:
                self.world.state = "ending"
                self.executor_runs(["failed", "answer lost"], 1)
                self.check_quiet()

    def check_quiet(self) -> None:
        done = self.world.settle()
        # A dead cluster is asked until its lease runs out; nothing else is done again and again.
        assert max(done.values(), default=0) <= 12, done.most_common(3)
        world = self.world
        believed = {name for name in NAMES if world.online(name)}
        inhabited = [name for name in self.inhabited() if name in believed]
        if world.state != "active":
            assert world.state == "gone"
            inhabited = []
        for one, other in combinations(inhabited, 2):
            assert ((one, other) in world.real) != ((other, one) in world.real), (one, other)
            assert ((one, other) in world.links) != ((other, one) in world.links), (one, other)
        for name in believed - set(inhabited):
            assert world.clusters[name].room is None, f"a room is left over in {name}"
            assert name not in world.placements
        for pair in [*world.links, *(p for p in world.real if set(p) <= believed)]:
            assert set(pair) <= set(inhabited), f"a link is left over: {pair}"
        for placement in world.placements.values():
            assert not placement.displaced or not believed
            for agent in placement.agents.values():
                assert world.agents[agent].alive

    def inhabited(self) -> list[str]:
        return [n for n, c in sorted(self.world.clusters.items()) if c.room is not None and c.room.people]

    def breakable(self) -> list[tuple[str, str]]:
        """Return links whose end somebody would tell of."""
        return [pair for pair, who in sorted(self.world.real.items()) if who not in self.world.silent]

    def spoken(self) -> list[str]:
        return [
            name
            for name, c in sorted(self.world.clusters.items())
            if c.reports and c.works and self.world.online(name) and c.start == c.known_start
        ]


PlanWorld.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestPlanWorld = PlanWorld.TestCase
