"""What a channel tells: whatever changes, and however often one looks, the agent ends with the state."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from causeway.channel import Assignment, Delta, Desired, DesiredLink
from control.agents.channels import Channels, Waker
from control.agents.telling import Telling

NAMES = st.sampled_from(["a", "b", "c", "d"])


def assignment(conference: str, attempt: int) -> Assignment:
    return Assignment(
        conference=conference, kinds=["event"], links=[DesiredLink(peer="x", role="dial", attempt=attempt)]
    )


class Channel(RuleBasedStateMachine):
    """The registry's state, the channel, and the agent that takes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[str, Assignment] = {}
        self.dirty: set[str] = set()
        self.telling = Telling()
        self.agent: dict[str, Assignment] = {}
        self.version: int | None = None
        self.numbers = 0

    @rule(name=NAMES, attempt=st.integers(0, 2))
    def change(self, name: str, attempt: int) -> None:
        self.truth[name] = assignment(name, attempt)
        self.dirty.add(name)

    @rule(name=NAMES)
    def end(self, name: str) -> None:
        self.truth.pop(name, None)
        self.dirty.add(name)

    @rule()
    def begin(self) -> None:
        self.take(self.telling.everything(self.number(), self.truth))
        self.dirty.clear()

    @precondition(lambda self: self.version is not None)
    @rule(more=st.sets(NAMES))
    def look_at_what_changed(self, more: set[str]) -> None:
        among = self.dirty | more
        self.look({name: each for name, each in self.truth.items() if name in among}, among)

    @precondition(lambda self: self.version is not None)
    @rule()
    def look_at_everything(self) -> None:
        self.look(self.truth, None)

    def look(self, state: dict[str, Assignment], among: set[str] | None) -> None:
        change = self.telling.compare(state, among=among)
        if change is not None:
            self.take(self.telling.tell(self.number(), change))
        self.dirty.clear()
        assert self.telling.compare(self.truth) is None

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def take(self, message: Desired | Delta) -> None:
        if isinstance(message, Desired):
            self.agent = {each.conference: each for each in message.conferences}
        else:
            assert message.base == self.version
            assert message.set or message.drop
            for name in message.drop:
                del self.agent[name]
            self.agent |= {each.conference: each for each in message.set}
        self.version = message.version
        assert self.telling.version == self.version

    @invariant()
    def the_agent_has_what_was_not_changed_since(self) -> None:
        if self.version is None:
            return
        for name in self.truth.keys() - self.dirty:
            assert self.agent[name] == self.truth[name]


TestChannel = Channel.TestCase


def test_a_change_that_is_taken_back_is_not_told() -> None:
    telling = Telling()
    telling.everything(1, {"a": assignment("a", 1)})
    assert telling.compare({"a": assignment("a", 1)}, among={"a", "b"}) is None


@given(st.lists(st.text(alphabet="ab ", max_size=4)))
def test_any_notice_may_come(notices: list[str]) -> None:
    channels = Channels()
    with channels.open("a"):
        for notice in notices:
            channels.heard(notice)


async def test_a_waker_gathers_what_it_hears() -> None:
    channels = Channels()
    with channels.open("a") as waker, channels.open("a") as second:
        assert len(channels) == 2
        channels.heard("a standup")
        channels.heard("a review")
        channels.heard("b other")
        assert await waker.wait(10) == (frozenset({"standup", "review"}), False)
        channels.heard("a")
        assert await waker.wait(10) == (frozenset(), True)
        channels.missed()
        assert await waker.wait(10) == (None, True)
        assert await second.wait(10) == (None, True)
        assert await waker.wait(0.01) == (None, True)
    assert len(channels) == 0


async def test_a_waker_that_nobody_asks_stays_small() -> None:
    waker = Waker()
    for number in range(5000):
        waker.changed(f"c{number}")
    assert await waker.wait(10) == (None, False)


async def test_a_waker_is_given_up_with_its_task() -> None:
    channels = Channels()

    async def hold() -> None:
        with channels.open("a") as waker:
            await waker.wait(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert len(channels) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(channels) == 0
