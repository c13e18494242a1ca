from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from control.cascade.plan import next_look, plan
from control.cascade.view import (
    Action,
    ClusterFacts,
    CreateRoom,
    ForgetConference,
    ForgetLink,
    LinkFacts,
    PlacementFacts,
    RemoveRoom,
    StartCascade,
    View,
)

NAMES = "abcd"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def asked(action: Action) -> tuple[str, ...]:
    match action:
        case CreateRoom(cluster) | RemoveRoom(cluster):
            return (cluster,)
        case StartCascade(dialer, listener):
            return (dialer, listener)
        case ForgetLink() | ForgetConference():
            return ()


@dataclass
class Room:
    """A room as it really is on its cluster."""

    participants: int = 0

    @property
    def token(self) -> bool:
        return self.participants > 0


class World(RuleBasedStateMachine):
    """Clusters with rooms and links, a registry of rows, an executor whose calls fail or lose their answers.

    `down` reports always come, some late; `up` reports may get lost.
    """

    @initialize(silent=st.frozensets(st.sampled_from(NAMES), max_size=2))
    def begin(self, silent: frozenset[str]) -> None:
        self.now = NOW
        self.online = dict.fromkeys(NAMES, True)
        self.silent = silent
        self.rooms: dict[str, Room] = {}
        self.real_links: set[tuple[str, str]] = set()
        self.placements: dict[str, PlacementFacts] = {}
        self.links: dict[tuple[str, str], LinkFacts] = {}
        self.ordinal = 0

    # What happens by itself.

    @rule(name=st.sampled_from(NAMES))
    def client_asks_to_join(self, name: str) -> None:
        placement = self.placements.get(name)
        if self.online[name] and (placement is None or placement.state == "lost"):
            self.ordinal += 1
            self.placements[name] = PlacementFacts(
                cluster=name, ordinal=self.ordinal, state="wanted", has_token=False, participants=0
            )

    @rule(name=st.sampled_from(NAMES))
    def client_really_joins(self, name: str) -> None:
        if name in self.rooms and self.online[name]:
            self.rooms[name].participants += 1
            self.report_room(name)

    @rule(name=st.sampled_from(NAMES))
    def client_leaves(self, name: str) -> None:
        room = self.rooms.get(name)
        if room is not None and room.participants and self.online[name]:
            room.participants -= 1
            if not room.participants:
                self.cut(name)
            self.report_room(name)

    @rule(name=st.sampled_from(NAMES))
    def cluster_dies(self, name: str) -> None:
        if self.online[name]:
            self.online[name] = False
            self.rooms.pop(name, None)
            self.cut(name)

    @rule(name=st.sampled_from(NAMES))
    def cluster_is_given_up(self, name: str) -> None:
        placement = self.placements.get(name)
        if not self.online[name] and placement is not None:
            self.placements[name] = replace(
                placement, state="lost", has_token=False, participants=0, retry_at=None
            )

    @rule(name=st.sampled_from(NAMES))
    def cluster_comes_back_empty(self, name: str) -> None:
        if self.online[name]:
            return
        self.online[name] = True
        placement = self.placements.get(name)
        if placement is not None and placement.state != "lost":
            self.placements[name] = replace(placement, state="wanted", has_token=False, participants=0)
        for pair, link in self.links.items():
            if name in pair:
                self.links[pair] = replace(link, state="wanted", since=self.now)

    @rule(data=st.data())
    def link_breaks(self, data: st.DataObject) -> None:
        if self.real_links:
            self.break_link(data.draw(st.sampled_from(sorted(self.real_links))))

    @rule(seconds=st.integers(0, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(
        luck=st.lists(st.sampled_from(["done", "failed", "answer lost", "up lost"]), min_size=1, max_size=4)
    )
    def executor_runs(self, luck: list[str]) -> None:
        for n, action in enumerate(plan(self.view(), self.now)):
            self.execute(action, luck[n % len(luck)])

    # What it means.

    def view(self) -> View:
        return View(
            conference="c",
            state="active",
            placements=tuple(self.placements.values()),
            links=tuple(self.links.values()),
            clusters={
                name: ClusterFacts(id=name, online=self.online[name], reports_links=name not in self.silent)
                for name in NAMES
            },
        )

    def report_room(self, name: str) -> None:
        room = self.rooms[name]
        self.placements[name] = replace(
            self.placements[name], has_token=room.token, participants=room.participants
        )

    def cut(self, name: str) -> None:
        for pair in [pair for pair in self.real_links if name in pair]:
            self.break_link(pair)

    def break_link(self, pair: tuple[str, str]) -> None:
        self.real_links.discard(pair)
        if pair in self.links and any(self.online[end] for end in pair if end not in self.silent):
            self.links[pair] = replace(self.links[pair], state="down", since=self.now)
        elif pair in self.links:
            # Nobody tells; plain clusters are probed, and then it is wanted anew.
            self.links[pair] = replace(self.links[pair], state="wanted", since=self.now)

    def execute(self, action: Action, luck: str) -> None:
        assert all(self.online[name] for name in asked(action))
        retry_at = self.now + 2 * SECOND
        match action:
            case CreateRoom(cluster):
                if luck != "failed":
                    self.rooms.setdefault(cluster, Room())
                facts = self.placements[cluster]
                if luck in {"failed", "answer lost"}:
                    facts = replace(facts, attempts=facts.attempts + 1, retry_at=retry_at)
                else:
                    facts = replace(facts, state="ready", attempts=0, retry_at=None)
                self.placements[cluster] = facts
                if cluster in self.rooms:
                    self.report_room(cluster)
            case StartCascade(dialer, listener):
                self.start(dialer, listener, luck, retry_at)
            case ForgetLink(dialer, listener):
                del self.links[dialer, listener]
            case _:
                pytest.fail(f"unexpected {action}")

    def start(self, dialer: str, listener: str, luck: str, retry_at: datetime) -> None:
        pair = (dialer, listener)
        assert (listener, dialer) not in self.links
        row = self.links.get(pair) or LinkFacts(
            dialer=dialer, listener=listener, state="wanted", since=self.now
        )
        ready = all(name in self.rooms and self.rooms[name].token for name in pair)
        if luck in {"failed", "answer lost"} or not ready:
            row = replace(row, attempts=row.attempts + 1, retry_at=retry_at)
        else:
            row = replace(row, state="requested", since=self.now, attempts=0, retry_at=None)
        if luck != "failed" and ready:
            # The bridge answers a second order for the same peer with ok, and reports again.
            self.real_links.discard((listener, dialer))
            self.real_links.add(pair)
            if luck != "up lost" and dialer not in self.silent:
                row = replace(row, state="up", since=self.now)
        self.links[pair] = row

    # What must hold.

    @invariant()
    def pairs_are_linked_once(self) -> None:
        for one, other in self.links:
            assert one != other
        pairs = Counter(tuple(sorted(pair)) for pair in self.real_links)
        assert max(pairs.values(), default=0) <= 1

    @invariant()
    def after_quiet_everybody_is_connected(self) -> None:
        saved = (
            self.now,
            {name: replace_room(room) for name, room in self.rooms.items()},
            set(self.real_links),
            dict(self.placements),
            dict(self.links),
        )
        self.settle()
        occupied = [
            p
            for p in self.placements.values()
            if self.online[p.cluster] and p.state == "ready" and p.has_token and p.participants
        ]
        for one, other in combinations(sorted(occupied, key=lambda p: p.ordinal), 2):
            assert (other.cluster, one.cluster) in self.real_links
            assert (other.cluster, one.cluster) in self.links
            assert (one.cluster, other.cluster) not in self.links
        self.now, self.rooms, self.real_links, self.placements, self.links = saved

    def settle(self) -> None:
        """Let the executor run without losses, waking only when the plan says so, until nothing waits."""
        for _ in range(60):
            actions = plan(self.view(), self.now)
            for action in actions:
                self.execute(action, "done")
            if not actions:
                look = next_look(self.view(), self.now)
                if look is None:
                    return
                assert look > self.now
                self.now = look
        pytest.fail("the executor does not come to rest")


def replace_room(room: Room) -> Room:
    return Room(participants=room.participants)


World.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase
