"""Several rooms over perfect links: whatever people do, everybody sees the same."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridges.wire import messages
from bridges.wire.framing import Metadata
from lab.room_outputs import (
    BridgeEvent,
    LinkDown,
    LinkUp,
    Output,
    ParticipantJoined,
    ParticipantLeft,
    StreamAdded,
    StreamRemoved,
    Subscribed,
    SubscriptionEnded,
    SubscriptionKey,
)
from tests.lab.test_room import AUDIO, VIDEO, make_room, refused, wire

# --- several rooms and perfect links -------------------------------------------------------------


class Observer:
    """A local participant's view, built from events alone; complains about what is told twice."""

    def __init__(self) -> None:
        self.participants: set[str] = set()
        self.streams: dict[str, str | None] = {}
        self.subscriptions: set[SubscriptionKey] = set()
        self.links: set[str] = set()

    def see(self, output: Output) -> None:
        match output:
            case ParticipantJoined(participant):
                assert participant.id not in self.participants
                self.participants.add(participant.id)
            case ParticipantLeft(id_):
                self.participants.remove(id_)
            case StreamAdded(stream):
                assert stream.id not in self.streams
                self.streams[stream.id] = stream.cluster
            case StreamRemoved(id_):
                del self.streams[id_]
            case Subscribed(key):
                assert key not in self.subscriptions
                self.subscriptions.add(key)
            case SubscriptionEnded(key):
                self.subscriptions.remove(key)
            case LinkUp(peer):
                assert peer not in self.links
                self.links.add(peer)
            case LinkDown(peer):
                self.links.remove(peer)
            case _:
                pass


CLUSTERS = ("c0", "c1", "c2")
Pair = tuple[str, str]


class Mesh(RuleBasedStateMachine):
    """Rooms of one conference, joined by links that lose nothing until they drop."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms = {cluster: make_room(cluster) for cluster in CLUSTERS}
        self.observers = {cluster: Observer() for cluster in CLUSTERS}
        # Messages on their way, by (from, to); a pair is linked when both directions are there.
        self.links: dict[Pair, deque[tuple[str, Any]]] = {}
        self.count = 0

    def outputs(self, cluster: str, outputs: list[Output]) -> None:
        for output in outputs:
            self.observers[cluster].see(output)
            if isinstance(output, BridgeEvent):
                messages.decode_event_message(Metadata(msgspec.json.encode(output)))
                for (origin, _), queue in self.links.items():
                    if origin == cluster:
                        queue.append((output.type, wire(output.data)))

    def deliver(self, pair: Pair) -> None:
        origin, target = pair
        type_, data = self.links[pair].popleft()
        self.outputs(target, self.rooms[target].cascading_event("bridge", origin, type_, data))

    @rule(cluster=st.sampled_from(CLUSTERS), id_=st.sampled_from("abc"))
    def join(self, cluster: str, id_: str) -> None:
        room = self.rooms[cluster]
        if id_ in {one.id for one in room.participants}:
            with refused("id-taken"):
                room.join(id_, user="u", role="presenter")
        else:
            self.outputs(cluster, room.join(id_, user="u", role="presenter"))

    @rule(cluster=st.sampled_from(CLUSTERS), data=st.data())
    def leave(self, cluster: str, data: st.DataObject) -> None:
        if local := self.rooms[cluster].local_participants:
            self.outputs(cluster, self.rooms[cluster].leave(data.draw(st.sampled_from(local)).id))

    @rule(cluster=st.sampled_from(CLUSTERS), id_=st.sampled_from("xyz"), data=st.data())
    def publish(self, cluster: str, id_: str, data: st.DataObject) -> None:
        room = self.rooms[cluster]
        if room.local_participants and id_ not in {one.id for one in room.streams}:
            owner = data.draw(st.sampled_from(room.local_participants)).id
            tracks = data.draw(st.sampled_from([[AUDIO], [VIDEO], [AUDIO, VIDEO]]))
            self.outputs(cluster, room.publish(owner, id_, tracks))

    @rule(cluster=st.sampled_from(CLUSTERS), data=st.data())
    def unpublish(self, cluster: str, data: st.DataObject) -> None:
        room = self.rooms[cluster]
        if room.local_streams:
            stream = data.draw(st.sampled_from(room.local_streams))
            self.outputs(cluster, room.unpublish(stream.info.owner, stream.id))

    @rule(cluster=st.sampled_from(CLUSTERS), muted=st.booleans(), data=st.data())
    def mute(self, cluster: str, muted: bool, data: st.DataObject) -> None:
        room = self.rooms[cluster]
        if room.local_streams:
            stream = data.draw(st.sampled_from(room.local_streams))
            self.outputs(cluster, room.set_mute(stream.info.owner, stream.id, "av", muted=muted))

    @rule(cluster=st.sampled_from(CLUSTERS), data=st.data())
    def subscribe(self, cluster: str, data: st.DataObject) -> None:
        room = self.rooms[cluster]
        if room.local_participants and room.streams:
            owner = data.draw(st.sampled_from(room.local_participants)).id
            stream = data.draw(st.sampled_from(room.streams))
            self.count += 1
            kinds = [track.type for track in stream.media.tracks]
            self.outputs(cluster, room.subscribe(owner, str(self.count), stream.id, kinds))

    @rule(a=st.sampled_from(CLUSTERS), b=st.sampled_from(CLUSTERS))
    def connect(self, a: str, b: str) -> None:
        if a == b or (a, b) in self.links:
            return
        for pair in ((a, b), (b, a)):
            self.links[pair] = deque([("initialize", wire(self.rooms[pair[0]].snapshot()))])

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def resynchronise(self, data: st.DataObject) -> None:
        """The link was replaced by a new one at once: only `initialize` comes, what was under way is lost."""
        pair = data.draw(st.sampled_from(sorted(self.links)))
        self.links[pair] = deque([("initialize", wire(self.rooms[pair[0]].snapshot()))])

    @precondition(lambda self: self.links)
    @rule(data=st.data(), by_bridge=st.booleans())
    def drop(self, data: st.DataObject, by_bridge: bool) -> None:
        a, b = data.draw(st.sampled_from(sorted(self.links)))
        for origin, target in ((a, b), (b, a)):
            del self.links[origin, target]
            room = self.rooms[target]
            self.outputs(target, room.cascading_event("bridge", origin, "onCascadingDisconnected"))
            assert origin not in {one.cluster for one in room.streams}
            assert origin not in self.observers[target].links
        if by_bridge:
            # The bridge of `a` is gone altogether: so are all its links, and the other sides notice.
            for pair in [pair for pair in self.links if a in pair]:
                del self.links[pair]
                if pair[0] == a:
                    event = self.rooms[pair[1]].cascading_event("bridge", a, "onCascadingDisconnected")
                    self.outputs(pair[1], event)
            self.outputs(a, self.rooms[a].bridge_lost("bridge"))

    @precondition(lambda self: any(self.links.values()))
    @rule(data=st.data())
    def some_arrive(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(sorted(pair for pair, queue in self.links.items() if queue))))

    @rule()
    def all_arrive(self) -> None:
        for pair, queue in self.links.items():
            while queue:
                self.deliver(pair)
        for cluster, room in self.rooms.items():
            linked = {origin for origin, target in self.links if target == cluster}
            assert set(room.links) == linked
            everybody = [
                (origin, one.user)
                for origin in (cluster, *linked)
                for one in self.rooms[origin].local_participants
            ]
            assert len(room.participants) == len(everybody)
            streams = sorted(
                (origin, [(track.type, track.status) for track in one.media.tracks])
                for origin in (cluster, *linked)
                for one in self.rooms[origin].local_streams
            )
            assert streams == sorted(
                (one.cluster or "", [(track.type, track.status) for track in one.media.tracks])
                for one in room.streams
            )

    @invariant()
    def events_tell_what_is(self) -> None:
        for cluster, room in self.rooms.items():
            observer = self.observers[cluster]
            assert observer.participants == {one.id for one in room.participants}
            assert observer.streams == {one.id: one.cluster for one in room.streams}
            assert observer.subscriptions == {one.key for one in room.subscriptions}
            assert observer.links == set(room.links)
            assert {one.stream for one in room.subscriptions} <= observer.streams.keys()


TestMesh = Mesh.TestCase
TestMesh.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
