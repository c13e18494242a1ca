"""Random stories of bridges with our own wire: what happens, breaks and comes back, drawn from a seed.

Used by the tests with few steps and many seeds, and from the command line with as many as wanted:
`python -m tests.bridges.own_story --seeds 1000`.
"""

from __future__ import annotations

import argparse
import random
import sys
from itertools import product
from typing import TYPE_CHECKING

import msgspec

from bridges.event.own.outputs import Diverged, Refused, Violated
from bridges.event.own.settings import OwnWireSettings
from bridges.wire.own.errors import OwnCode
from tests.bridges.own_world import World, exactly_once, participant, stream

if TYPE_CHECKING:
    from tests.bridges.own_world import Bridge

WIDE = OwnWireSettings(log_events=100_000, log_bytes=1 << 30, origin_grace=600)
NARROW = OwnWireSettings(log_events=8, log_bytes=4096, credit_bytes=4096, snapshot_part_bytes=1024)


_WEIGHTS = {
    "publish_something": 70,
    "arrive": 100,
    "link": 10,
    "cut": 6,
    "wait": 6,
    "stall": 4,
    "detach": 1,
    "reshape": 1,
    "die": 2,
}


class Story:
    """A forest of bridges, and what happens to it."""

    def __init__(
        self, seed: int, settings: OwnWireSettings, *, bridges: int, restarts: bool, rings: bool
    ) -> None:
        self.random = random.Random(seed)
        self.restarts = restarts
        self.rings = rings
        self.world = World(settings, window=self.random.choice([200, 4096, 1 << 16]))
        self.names = [f"c{number}" for number in range(bridges)]
        self.edges: list[tuple[str, str]] = []
        self.published: dict[str, list[int]] = {name: [] for name in self.names}
        self.count = 0
        self.shape()
        for name in self.names:
            self.world.bridge(name)

    def shape(self) -> None:
        """Draw a tree."""
        self.edges = []
        for index, name in enumerate(self.names[1:], 1):
            ends = [name, self.names[self.random.randrange(index)]]
            self.random.shuffle(ends)
            self.edges.append((ends[0], ends[1]))

    def run(self, steps: int) -> None:
        if self.world.settings is WIDE:
            # Everybody knows everybody: what comes later can be had from everybody's log.
            for edge in self.edges:
                self.connect(edge)
            self.world.settle()
        for _ in range(steps):
            self.step()
        self.finish()

    def step(self) -> None:
        act = self.random.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
        getattr(self, act)()
        self.check_credit()

    def publish_something(self) -> None:
        self.publish(self.any_bridge())

    def link(self) -> None:
        self.connect(self.random.choice(self.edges))

    def cut(self) -> None:
        if self.world.connections:
            self.random.choice(self.world.connections).cut()

    def wait(self) -> None:
        self.world.now += self.random.choice([0.1, 1.0, 3.0])
        self.world.poll()

    def stall(self) -> None:
        """A node stops to take events, or goes on."""
        view = self.any_bridge().view
        view.consuming = not view.consuming
        if view.consuming:
            view.consume()

    def detach(self) -> None:
        self.any_bridge().relay.detach()

    def die(self) -> None:
        if self.restarts:
            self.restart(self.random.choice(self.names))

    def check_credit(self) -> None:
        """No conference has more on its way to a node than was allowed, but for one message."""
        largest = self.world.settings.credit_bytes + 4096
        for connection in self.world.connections:
            for end in connection.ends:
                assert all(channel.unconsumed_bytes < largest for channel in end.conversation.figures())

    def arrive(self) -> None:
        self.world.flush()
        ways = [(connection, way) for connection in self.world.connections for way in connection.ways()]
        if ways:
            connection, way = self.random.choice(ways)
            connection.step(way, self.random.choice([1, 7, 100, 1000, 100_000]))

    def any_bridge(self) -> Bridge:
        return self.world.bridges[self.random.choice(self.names)]

    def publish(self, bridge: Bridge) -> None:
        own = bridge.relay.origin(bridge.name)
        assert own is not None
        self.count += 1
        participants, streams = list(own.picture.participants), list(own.picture.streams)
        kind = self.random.randrange(8)
        if not bridge.relay._attached:
            state = bridge.relay.state(bridge.name)
            assert state is not None
            state[0][f"p{self.count}"] = participant(f"p{self.count}")
            bridge.relay.attach(*state)
        elif kind == 0 or not participants:
            bridge.relay.publish("addParticipant", participant(f"p{self.count}", n=self.count))
        elif kind == 1:
            bridge.relay.publish("removeParticipant", self.random.choice(participants))
        elif kind == 2 or not streams:
            bridge.relay.publish("addStream", stream(f"s{self.count}", self.random.choice(participants)))
        elif kind == 3:
            bridge.relay.publish("removeStream", self.random.choice(streams))
        elif kind == 4:
            info = {"owner": "x", "type": "webrtc", "inViews": [str(self.count)], "attributes": None}
            bridge.relay.publish("updateStreamInfo", {"id": self.random.choice(streams), "info": info})
        elif kind == 5:
            muted = self.random.random() < 0.5
            data = {"id": self.random.choice(streams), "track": "audio", "muted": muted}
            bridge.relay.publish("setStreamMute", data)
        else:
            data = {"activeInputStream": str(self.count), "target": "x"}
            bridge.relay.publish("onAudioActiveness", data)
            self.published[bridge.name].append(self.count)

    def connect(self, edge: tuple[str, str]) -> None:
        self.world.connect(*edge)

    def reshape(self) -> None:
        """Another tree: what is no edge of it any more is cut, or stays and makes rings."""
        self.shape()
        if self.rings:
            return
        edges = {frozenset(edge) for edge in self.edges}
        for connection in self.world.connections:
            if frozenset(end.bridge.name for end in connection.ends) not in edges:
                connection.cut()

    def restart(self, name: str) -> None:
        """A bridge process dies and comes back, with nothing, perhaps with a clock that went back."""
        for connection in self.world.connections:
            if any(end.bridge.name == name for end in connection.ends):
                connection.cut()
        self.world.bridge(name, incarnation=self.random.randrange(1, 1 << 40))
        self.published[name] = []

    def finish(self) -> None:
        """Everything is well again, and stays so for a while."""
        for bridge in self.world.bridges.values():
            bridge.view.consuming = True
            bridge.view.consume()
            if not bridge.relay._attached:
                state = bridge.relay.state(bridge.name)
                assert state is not None
                bridge.relay.attach(*state)
        for edge in self.edges:
            self.connect(edge)
        self.world.settle()
        self.world.sleep(1.0)
        self.world.check()
        for bridge in self.world.bridges.values():
            for name in self.names:
                exactly_once(bridge.view, name)
            assert not bridge.of(Refused), bridge.of(Refused)
            assert all(one.code is OwnCode.TIMED_OUT for one in bridge.of(Violated)), bridge.of(Violated)
            assert not bridge.of(Diverged)
            assert self.rings or bridge.relay.loops == 0
        if self.world.settings is WIDE and not self.restarts:
            self.check_nothing_is_missing()
        self.world.sleep(self.world.settings.digest_interval + 3)
        self.world.check()
        for bridge in self.world.bridges.values():
            assert not bridge.of(Diverged)

    def check_nothing_is_missing(self) -> None:
        """Each node got every event that was published after the state that it was told first."""
        for bridge in self.world.bridges.values():
            for name in self.names:
                if name == bridge.name:
                    continue
                told = [
                    int(data["activeInputStream"])
                    for data in bridge.view.events_of(name, "onAudioActiveness")
                ]
                published = self.published[name]
                assert told == published[len(published) - len(told) :], (bridge.name, name)
                begun = next(entry for entry in bridge.view.log if entry[0] == name)
                own = self.world.bridges[name].relay.origin(name)
                assert own is not None
                later = [event.seq for event in own.log.after(begun[2]) if event.type == "onAudioActiveness"]
                assert len(told) == len(later), (bridge.name, name, len(told), len(later))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        for settings, name in ((WIDE, "wide"), (NARROW, "narrow")):
            for restarts, rings in product((False, True), repeat=2):
                try:
                    story = Story(seed, settings, bridges=2 + seed % 5, restarts=restarts, rings=rings)
                    story.run(arguments.steps)
                except Exception:
                    sys.stderr.write(f"seed {seed}, {name} logs, restarts {restarts}, rings {rings}\n")
                    raise
    summary = {"seeds": arguments.seeds, "steps": arguments.steps}
    sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")


if __name__ == "__main__":
    main()
