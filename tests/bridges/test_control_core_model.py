"""The core of an agent against a model: whatever comes in whatever order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridges.control.orders import Dial, HangUp, Leave, Leg, Say
from causeway.channel import (
    Ack,
    Delta,
    Desired,
    DesiredLink,
    Refuse,
    Report,
)
from tests.bridges.test_control_core import KINDS, address, core, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.control.orders import Output


# --- against a model: whatever comes in whatever order ------------------------------------------

CONFERENCES = ("a", "b")
PEERS = ("east", "north", "west")
LINKS = st.builds(
    lambda peer, attempt, token, event, media, role: DesiredLink(
        peer=peer,
        role=role,
        attempt=attempt,
        token=token,
        event=address(1) if event else None,
        media=address(2) if media else None,
    ),
    st.sampled_from(PEERS),
    st.integers(0, 1),
    st.sampled_from([None, "one", "two"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["dial", "listen"]),
)
ASSIGNMENTS = st.dictionaries(
    st.sampled_from(CONFERENCES), st.lists(LINKS, max_size=3, unique_by=lambda link: link.peer), max_size=2
)


class Agent(RuleBasedStateMachine):
    """A control that is always right, bridges that do as told, and everything between them in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.core = core(max_links=3)
        self.now = 0.0
        self.version = 0
        self.truth: dict[str, list[DesiredLink]] = {}
        self.dialled: dict[Leg, Dial] = {}
        self.up: set[Leg] = set()
        self.connected = False
        self.in_step = False
        self.acknowledged: int | None = None
        self.told: dict[tuple[str, str], str] = {}

    def do(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case Dial():
                    self.dialled[output.leg] = output
                case HangUp():
                    leg = Leg(output.conference, output.peer, output.kind)
                    del self.dialled[leg]
                    self.up.discard(leg)
                    self.core.leg_changed(leg.kind, leg.conference, leg.peer, "gone", now=self.now)
                case Say(message=Ack(version=version) | Refuse(version=version)):
                    self.acknowledged = version
                case Say(message=Report(links=links, full=full)):
                    if full:
                        self.told = {}
                    self.told |= {(each.conference, each.peer): each.state for each in links}
                case Say() | Leave():
                    pass

    @rule()
    def connect(self) -> None:
        self.connected, self.in_step = True, False
        self.do(self.core.connected(epoch=1, ttl=1e9, now=self.now))

    @rule()
    def disconnect(self) -> None:
        self.connected = self.in_step = False
        self.core.disconnected()

    @precondition(lambda self: self.connected)
    @rule(truth=ASSIGNMENTS)
    def tell_all(self, truth: dict[str, list[DesiredLink]]) -> None:
        self.version += 1
        self.truth = truth
        self.in_step = True
        conferences = [serving(each, *links) for each, links in truth.items()]
        self.do(self.core.receive(Desired(version=self.version, conferences=conferences), self.now))

    @precondition(lambda self: self.in_step)
    @rule(changes=ASSIGNMENTS, drop=st.sets(st.sampled_from(CONFERENCES)))
    def tell_changes(self, changes: dict[str, list[DesiredLink]], drop: set[str]) -> None:
        delta = Delta(
            base=self.version,
            version=self.version + 1,
            set=[serving(each, *links) for each, links in changes.items()],
            drop=sorted(drop - changes.keys()),
        )
        self.version += 1
        self.truth = {k: v for k, v in self.truth.items() if k not in drop} | changes
        self.do(self.core.receive(delta, self.now))
        before = self.core.version
        self.do(self.core.receive(delta, self.now))
        assert self.core.version == before

    @rule(data=st.data(), state=st.sampled_from(["up", "down", "gone"]))
    def bridge_says(self, data: st.DataObject, state: Literal["up", "down", "gone"]) -> None:
        known = sorted(self.dialled)
        if not known:
            return
        leg = data.draw(st.sampled_from(known))
        (self.up.add if state == "up" else self.up.discard)(leg)
        self.core.leg_changed(leg.kind, leg.conference, leg.peer, state, now=self.now)

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while (due := self.core.next_timer()) is not None and due <= self.now:
            self.do(self.core.handle_timer(self.now))

    @invariant()
    def dials_what_is_desired(self) -> None:
        if not self.in_step:
            return
        assert self.acknowledged == self.version
        possible = {
            Leg(conference, link.peer, kind): (link.token, link.attempt)
            for conference, links in self.truth.items()
            for link in links
            if link.role == "dial" and link.token and link.peer != "west"
            for kind in KINDS
            if (link.event if kind == "event" else link.media) is not None
        }
        dialled = {leg: (dial.token, dial.attempt) for leg, dial in self.dialled.items()}
        assert dialled.items() <= possible.items()
        links = {leg.link for leg in dialled}
        assert len(links) == min(3, len({leg.link for leg in possible})), "as many as there is room for"
        assert dialled.keys() == {leg for leg in possible if leg.link in links}, "each as a whole"

    @invariant()
    def reports_what_is_true(self) -> None:
        due = self.core.next_timer()
        if not self.in_step or (due is not None and due <= self.now):
            return
        for conference, links in self.truth.items():
            for link in links:
                legs = {leg for leg in self.dialled if leg.link == (conference, link.peer)}
                if legs and legs <= self.up:
                    assert self.told.get((conference, link.peer)) == "up"
                elif legs:
                    assert self.told.get((conference, link.peer)) != "up"


Agent.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgent = Agent.TestCase
