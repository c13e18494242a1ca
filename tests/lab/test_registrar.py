from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from causeway.errors import ConfigError
from lab.report_queue import ReportQueue, Resource
from lab.room_options import RoomOptions
from lab.settings import RegistrarSettings
from tests.lab.cluster_kit import bridge, lab_cluster, member, stats, until
from tests.lab.test_node import initialize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "cw_enrolment_x"
ROOM = Resource("room", "r")
WHO = Resource("participant", "r", "p")
LINK = Resource("link", "r", "c2")


# --- the queue ------------------------------------------------------------------------------------


def drain(queue: ReportQueue) -> list[tuple[str, bool]]:
    told = []
    while (report := queue.next()) is not None:
        queue.taken(report)
        told.append((report.resource.kind, report.detail is not None))
    return told


def test_a_room_is_told_before_those_in_it_and_departures_before_all() -> None:
    queue = ReportQueue(limit=10)
    queue.put(LINK)
    queue.put(WHO, "u", "r")
    queue.put(ROOM, "token")
    queue.put(Resource("capacity", name="portal"))
    assert drain(queue) == [("capacity", True), ("room", True), ("participant", True), ("link", True)]
    queue.remove(LINK)
    queue.remove(WHO)
    assert drain(queue) == [("participant", False), ("link", False)]
    assert drain(queue) == []


def test_only_the_latest_state_is_told_and_a_newer_one_is_not_taken_with_an_older() -> None:
    queue = ReportQueue(limit=10)
    queue.put(ROOM, "one")
    told = queue.next()
    assert told is not None
    queue.put(ROOM, "two")
    queue.taken(told)
    newer = queue.next()
    assert newer is not None
    assert newer.detail == ("two",)
    assert "two" not in repr(newer)
    queue.remove(WHO)  # never stated
    assert len(queue) == 1


def test_everything_true_is_told_anew_with_what_waits() -> None:
    queue = ReportQueue(limit=10)
    queue.put(ROOM, "t")
    queue.put(WHO, "u", "r")
    drain(queue)
    queue.remove(WHO)
    queue.tell_anew()
    assert drain(queue) == [("participant", False), ("room", True)]


def test_what_was_under_way_does_not_take_what_is_told_anew() -> None:
    queue = ReportQueue(limit=10)
    queue.put(ROOM, "t")
    under_way = queue.next()
    assert under_way is not None
    queue.tell_anew()
    queue.taken(under_way)
    assert drain(queue) == [("room", True)]


def test_a_closed_room_takes_everything_in_it_along() -> None:
    queue = ReportQueue(limit=10)
    queue.put(ROOM, "t")
    queue.put(WHO, "u", "r")
    drain(queue)
    queue.put(LINK)
    queue.close_room("r")
    assert drain(queue) == [("room", False)]
    queue.tell_anew()
    assert drain(queue) == []


def test_a_room_that_closed_and_opened_again_is_told_as_both() -> None:
    queue = ReportQueue(limit=10)
    queue.put(ROOM, "t")
    queue.put(WHO, "u", "r")
    drain(queue)
    queue.remove(WHO)
    queue.close_room("r")
    queue.put(ROOM, "another")
    queue.put(Resource("participant", "r", "new"), "u", "r")
    assert drain(queue) == [("room", False), ("room", True), ("participant", True)]
    queue.close_room("r")
    queue.put(ROOM, "third")
    queue.close_room("r")
    assert drain(queue) == [("room", False)]


def test_what_is_said_once_is_not_told_anew_and_never_too_much() -> None:
    queue = ReportQueue(limit=2)
    missing = [Resource("missing", room) for room in "abc"]
    for each in missing:
        queue.say_once(each, "7")
    assert len(queue) == 2
    queue.close_room("a")  # there is another one by now
    assert drain(queue) == [("missing", True)]
    queue.tell_anew()
    assert drain(queue) == []
    assert not queue.overflowed


def test_too_many_departures_make_a_fresh_start_necessary() -> None:
    queue = ReportQueue(limit=2)
    queue.put(ROOM, "t")
    people = [Resource("participant", "r", str(number)) for number in range(5)]
    for one in people:
        queue.put(one, "u", "r")
    drain(queue)
    for one in people[:3]:
        queue.remove(one)
    assert (queue.overflowed, len(queue)) == (True, 2)
    queue.start_afresh()
    assert (queue.overflowed, len(queue)) == (False, 3)
    assert drain(queue) == [("room", True), ("participant", True), ("participant", True)]


@given(st.lists(st.tuples(st.sampled_from([ROOM, WHO, LINK]), st.sampled_from(["put", "remove", "tell"]))))
def test_in_the_end_control_knows_exactly_what_is_true(steps: list[tuple[Resource, str]]) -> None:
    queue = ReportQueue(limit=100)
    known: set[Resource] = set()
    true: set[Resource] = set()

    def tell() -> bool:
        report = queue.next()
        if report is None:
            return False
        (known.discard if report.detail is None else known.add)(report.resource)
        queue.taken(report)
        return True

    for resource, step in steps:
        if step == "put":
            queue.put(resource, "x")
            true.add(resource)
        elif step == "remove":
            queue.remove(resource)
            true.discard(resource)
        else:
            tell()
    while tell():
        pass
    assert known == true


# --- against a control ------------------------------------------------------------------------------


class Control:
    """As much of control as a cluster sees: remembers what it was told, and can lose or refuse it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Any]] = []
        """Method, path below the cluster, body."""
        self.epochs: list[str | None] = []
        self.numbers: list[int] = []
        """Of all requests but heartbeats and the farewell, those that were refused included."""
        self.epoch = 0
        self.refuse: dict[tuple[str, str], tuple[int, str]] = {}
        """Status and problem type by method and start of the path."""
        self.ttl = 0.3
        self.port = 0

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        path = request.path.removeprefix("/v1/clusters/c1")
        if request.path == "/.well-known/jwks.json":
            return web.json_response({"keys": []})
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if number := request.headers.get("Causeway-Report"):
            self.numbers.append(int(number))
        for (method, start), (status, type_) in self.refuse.items():
            if request.method == method and path.startswith(start):
                problem = {"type": type_, "title": type_, "status": status}
                return web.json_response(problem, status=status, content_type="application/problem+json")
        self.told.append((request.method, path, msgspec.json.decode(body) if body else None))
        self.epochs.append(request.headers.get("Causeway-Epoch"))
        if (request.method, path) == ("PUT", ""):
            self.epoch += 1
        if path in {"", "/heartbeat"} and request.method != "DELETE":
            lease = {
                "cluster": "c1",
                "epoch": self.epoch,
                "ttl": self.ttl,
                "heartbeat_interval": self.ttl / 3,
            }
            return web.json_response(lease)
        return web.Response(status=204)

    def find(self, method: str, path: str) -> list[Any]:
        return [body for verb, where, body in self.told if (verb, where) == (method, path)]

    async def was_told(self, method: str, path: str, count: int = 1) -> list[Any]:
        await until(lambda: len(self.find(method, path)) >= count)
        return self.find(method, path)

    def forget(self) -> None:
        self.told.clear()


@contextlib.asynccontextmanager
async def listening(control: Control) -> AsyncIterator[Control]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", control.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", control.port)
    await site.start()
    assert site._server is not None
    control.port = runner.addresses[0][1]
    try:
        yield control
    finally:
        await runner.cleanup()


def reporting(control: Control, **changes: Any) -> Any:
    registrar = RegistrarSettings(retry_base=0.02, retry_cap=0.1, call_timeout=2)
    base = {"control_url": f"http://127.0.0.1:{control.port}", "enrolment_key": KEY, "registrar": registrar}
    return lab_cluster(**{**base, **changes})


async def test_a_cluster_registers_beats_and_leaves() -> None:
    async with listening(Control()) as control:
        async with reporting(control, instance="deployment-1") as cluster:
            [registration] = await control.was_told("PUT", "")
            assert registration == {
                "region": "eu-west",
                "rest_url": cluster.url,
                "service_id": "service",
                "service_key": "key of the service",
                "instance": "deployment-1",
                "incarnation": cluster.registrar.incarnation,
                "driver": "causeway",
                "portal": {"host": "127.0.0.1", "port": int(cluster.url.rpartition(":")[2]), "secure": False},
            }
            for module in ("conference", "portal", "webrtc"):
                await control.was_told("PUT", f"/capacity/{module}")
            beat = (await control.was_told("POST", "/heartbeat", 2))[0]
            assert beat["load"].keys() <= {"participants", "streams", "cpu"}
            assert (await stats(cluster))[1]["registered"] is True
        assert control.told[-1][:2] == ("DELETE", "")
        assert control.epochs[-1] == "1"


async def test_what_happens_in_rooms_is_told_in_order_and_only_what_is_local() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "")
        async with member(cluster, user="alice") as alice, bridge(cluster) as event:
            await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
            paths = [path for method, path, _ in control.told if path.startswith("/rooms")]
            assert paths == ["/rooms/room", f"/rooms/room/participants/{alice.id}"]
            token = cluster.rooms.running[0].room.token
            assert control.find("PUT", "/rooms/room") == [{"token": token}]
            assert control.find("PUT", paths[1]) == [{"user": "alice", "role": "presenter"}]
            node = await event.node()
            await event.call(node, "handleCascadingEvents", event.worker, "c2", initialize())
            assert await control.was_told("PUT", "/rooms/room/links/c2") == [{"state": "up"}]
            assert not [path for _, path, _ in control.told if path.endswith("/participants/q")]
            # Whoever orders a link that is up waits to hear of it.
            for listener in cluster.management.ordered:
                listener("room", "c3")
                listener("room", "c2")
            assert (await control.was_told("PUT", "/rooms/room/links/c2", 2))[1] == {"state": "up"}
            assert not control.find("PUT", "/rooms/room/links/c3")
            await control.was_told("PUT", "/capacity/eventbridge")
        # The bridge is gone, and so is alice.
        assert (await control.was_told("PUT", "/rooms/room/links/c2", 3))[2] == {"state": "down"}
        await control.was_told("DELETE", "/capacity/eventbridge")
        await control.was_told("DELETE", f"/rooms/room/participants/{alice.id}")
        cluster.rooms.delete("room")
        await control.was_told("DELETE", "/rooms/room")


async def test_bridges_are_registered_with_their_addresses_and_again_with_new_ones() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "")
        async with bridge(cluster):
            address = {"host": "192.0.2.7", "port": 7000, "fingerprint": "ab" * 32}
            assert (await control.was_told("PUT", "", 2))[1]["event_bridge"] == address
        names = (f"eventbridge-{number}@127.0.0.1" for number in itertools.count())
        async with bridge(cluster, join=False) as fake:
            fake.answers["getInfo"] = {"ip": "192.0.2.7", "port": 7001, "fingerprint": "cd" * 32}
            await fake.call("owt-cluster", "join", "eventbridge", next(names), {})
            again = (await control.was_told("PUT", "", 3))[2]
            assert again["event_bridge"]["port"] == 7001
            assert again["incarnation"] == cluster.registrar.incarnation


async def test_a_bridge_that_does_not_say_where_it_is_is_asked_again() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "")
        async with bridge(cluster, "mediabridge", join=False) as fake:
            fake.answers["getInfo"] = RuntimeError("not yet")
            await fake.call("owt-cluster", "join", "mediabridge", fake.worker, {})
            await fake.was_asked("getInfo", 2)
            fake.answers["getInfo"] = {"ip": "192.0.2.7", "port": 7002}
            assert (await control.was_told("PUT", "", 2))[1]["media_bridge"]["port"] == 7002


@pytest.mark.parametrize("refusal", [(404, "cluster-unknown"), (409, "stale-epoch")])
@pytest.mark.parametrize("call", [("POST", "/heartbeat"), ("PUT", "/rooms")])
async def test_a_control_that_forgot_us_is_told_everything_anew(
    refusal: tuple[int, str], call: tuple[str, str]
) -> None:
    async with listening(Control()) as control, reporting(control) as cluster, member(cluster) as alice:
        await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
        control.refuse[call] = refusal
        control.forget()
        async with member(cluster):  # so that there is something to report
            await control.was_told("PUT", "", 1)
            del control.refuse[call]
            await control.was_told("PUT", "/rooms/room")
            await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
            await control.was_told("PUT", "/capacity/portal")
            await until(lambda: control.epochs[-1] == str(control.epoch))


async def test_control_may_come_late_and_go_and_come() -> None:
    control = Control()
    async with listening(control):
        pass  # only to have a port where nobody listens
    async with reporting(control) as cluster, member(cluster) as alice:
        assert (await stats(cluster))[1]["registered"] is False
        async with listening(control):
            await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
        async with member(cluster) as bob:
            pass
        async with member(cluster) as carol, listening(control):
            await control.was_told("PUT", f"/rooms/room/participants/{carol.id}")
            # Who came and went meanwhile is taken back, at most: control never has to know.
            assert not control.find("PUT", f"/rooms/room/participants/{bob.id}")


async def test_a_fault_of_control_is_waited_out_and_a_refusal_is_not_repeated() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        control.refuse["PUT", "/rooms"] = (503, "unavailable")
        async with member(cluster) as alice:
            await control.was_told("POST", "/heartbeat", 2)
            control.refuse["PUT", "/rooms"] = (422, "no-thanks")
            await until(lambda: len(cluster.registrar._queue) == 0)
            del control.refuse["PUT", "/rooms"]
            assert not control.find("PUT", f"/rooms/room/participants/{alice.id}")


@pytest.mark.parametrize("made_by_control", [True, False])
async def test_a_room_that_control_made_and_knows_no_more_is_deleted(*, made_by_control: bool) -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        control.refuse["PUT", "/rooms"] = (404, "conference-unknown")
        epoch = 7 if made_by_control else None
        cluster.rooms.create("room", RoomOptions(id="room", placement_epoch=epoch))
        async with member(cluster):
            await until(lambda: len(cluster.registrar._queue) == 0)
            assert [each.id for each in cluster.rooms.records] == ([] if made_by_control else ["room"])


async def test_too_many_waiting_reports_end_in_a_fresh_start() -> None:
    control = Control()
    async with listening(control):
        pass
    settings = RegistrarSettings(retry_base=0.02, retry_cap=0.1, max_pending=1)
    async with reporting(control, registrar=settings) as cluster:
        incarnation = cluster.registrar.incarnation
        async with member(cluster) as alice:
            for _ in range(3):
                async with member(cluster):
                    pass
            await until(lambda: len(cluster.rooms.running[0].room.participants) == 1)
            async with listening(control):
                await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
                assert (
                    control.find("PUT", "")[-1]["incarnation"] == cluster.registrar.incarnation != incarnation
                )


async def test_a_control_that_does_not_answer_holds_nobody_up_at_the_end() -> None:
    never = asyncio.Event()

    class Hanging(Control):
        async def serve(self, request: web.Request) -> web.Response:
            if request.method == "DELETE":
                await never.wait()
            return await super().serve(request)

    async with listening(Hanging()) as control:
        settings = RegistrarSettings(stop_timeout=0.1)
        async with asyncio.timeout(5):
            async with reporting(control, registrar=settings):
                await control.was_told("PUT", "")
        never.set()


async def test_a_control_url_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="enrolment_key"):
        async with lab_cluster(control_url="http://127.0.0.1:1"):
            pass


async def test_every_try_has_a_larger_number_also_of_what_was_superseded() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "/capacity/portal")
        control.refuse["PUT", "/rooms/room"] = (409, "report-superseded")
        before = len(control.numbers)
        async with member(cluster, user="alice") as alice:
            await until(lambda: len(control.numbers) >= before + 3)
            del control.refuse["PUT", "/rooms/room"]
            await control.was_told("PUT", f"/rooms/room/participants/{alice.id}")
        assert control.numbers == list(range(1, len(control.numbers) + 1))


async def test_a_room_that_somebody_has_a_token_for_is_said_to_be_missing() -> None:
    async with listening(Control()) as control, reporting(control) as cluster:
        await control.was_told("PUT", "")
        cluster.registrar.room_missing("gone", 7)
        assert await control.was_told("POST", "/rooms/gone/missing") == [{"placement": 7}]
