"""Plans of trees and stars, whose links relay: whole after every change, never a loop, and soon at rest."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from control.cascade.plan import plan, topology_of
from control.cascade.topology import TopologyWish
from control.cascade.view import ClusterFacts, View
from tests.control.planning import NOW, agent, done, placed

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = [f"n{number}" for number in range(12)]


@dataclass
class Forest:
    """Which names are joined."""

    parents: dict[str, str] = field(default_factory=dict)

    def root(self, name: str) -> str:
        while name in self.parents:
            name = self.parents[name]
        return name

    def link(self, one: str, other: str) -> bool:
        """Return False for names that are joined already."""
        a, b = self.root(one), self.root(other)
        if a != b:
            self.parents[a] = b
        return a != b


def up(view: View) -> Iterable[tuple[str, str]]:
    return [(link.dialer, link.listener) for link in view.links if link.state == "up"]


class Conference:
    """One conference whose rows follow its plan at once, and whose requested links come up."""

    def __init__(self, draw: random.Random, kind: Literal["tree", "star"]) -> None:
        self.draw = draw
        self.ordinal = 0
        places = {name: (draw.uniform(-60, 60), draw.uniform(-170, 170)) for name in NAMES}
        self.clusters = {
            name: ClusterFacts(id=name, online=True, reports_links=True, region=name, location=places[name])
            for name in NAMES
        }
        self.view = View(
            conference="c",
            state="active",
            topology=TopologyWish(
                kind=kind, degree_limit=draw.choice([2, 3, 4]), hubs=draw.choice([(), ("n3",)])
            ),
            placements=(),
            links=(),
            clusters={},
            agents=tuple(agent(f"{name}-agent", name) for name in NAMES),
            relaying=True,
        )

    def join(self) -> None:
        away = [name for name in NAMES if name not in self.view.clusters]
        if away:
            self.ordinal += 1
            name = self.draw.choice(away)
            self.view = replace(
                self.view,
                placements=(*self.view.placements, placed(name, self.ordinal)),
                clusters={**self.view.clusters, name: self.clusters[name]},
            )

    def die(self) -> None:
        if self.view.clusters:
            gone = self.draw.choice(sorted(self.view.clusters))
            self.view = replace(
                self.view,
                placements=tuple(p for p in self.view.placements if p.cluster != gone),
                links=tuple(x for x in self.view.links if gone not in (x.dialer, x.listener)),
                clusters={name: c for name, c in self.view.clusters.items() if name != gone},
            )

    def measure(self) -> None:
        pair = self.draw.sample(NAMES, 2)
        trips = {**self.view.round_trips, (pair[0], pair[1]): self.draw.uniform(1, 400)}
        self.view = replace(self.view, round_trips=trips)

    def settle(self) -> None:
        for _ in range(20):
            actions = plan(self.view, NOW)
            for action in actions:
                after = done(self.view, action, NOW)
                assert after is not None
                self.view = after
            links = tuple(replace(x, state="up") if x.state == "requested" else x for x in self.view.links)
            self.view = replace(self.view, links=links)
            self.check_loops()
            if not actions:
                return
        raise AssertionError("it does not come to rest")

    def check_loops(self) -> None:
        forest = Forest()
        if topology_of(self.view, NOW).used != "mesh":
            assert all(forest.link(*pair) for pair in up(self.view))

    def check_whole(self) -> None:
        forest = Forest()
        for pair in up(self.view):
            forest.link(*pair)
        assert len({forest.root(name) for name in self.view.clusters}) <= 1


@given(st.integers(0, 2**32), st.sampled_from(["tree", "star"]))
@settings(max_examples=25, deadline=None)
def test_relayed_conferences_are_whole_and_free_of_loops(seed: int, kind: Literal["tree", "star"]) -> None:
    draw = random.Random(seed)
    conference = Conference(draw, kind)
    for _ in range(30):
        draw.choice([conference.join, conference.join, conference.die, conference.measure])()
        conference.settle()
        conference.check_whole()
