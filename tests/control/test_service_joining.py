from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode

from control.settings import JoinSettings, LeaseSettings
from tests.control.owt_stub import Trouble
from tests.control.service import running, until


async def test_a_join_makes_the_room_and_returns_the_way_in(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        answer = await service.join("standup", region="eu", role="viewer")
        assert answer.status_code == 200, answer.text
        way = answer.json()
        token = way.pop("token")
        events = "http://control.test/v1/conferences/standup/events?token="
        assert way.pop("events").startswith(events)
        assert way == {
            "conference": "standup",
            "cluster": "eu-1",
            "region": "eu",
            "placed": "region",
            "expires_at": None,
            "decision": None,
            "ip": "127.0.0.1",
            "port": 8004,
            "secure": False,
            "room": "standup",
        }
        assert json.loads(b64decode(token))["tokenId"] == "token-1"
        assert answer.headers["cache-control"] == "no-store"
        assert [c.body["options"]["_id"] for c in eu.stub.made("create_room")] == ["standup"]
        [asked] = eu.stub.made("token")
        assert (asked.body["user"], asked.body["role"]) == ("ada", "viewer")
        shown = await service.conference("standup")
        assert [(p["cluster"], p["state"], p["ordinal"]) for p in shown["placements"]] == [
            ("eu-1", "ready", 1)
        ]
        assert shown["participants"] == []


async def test_region_goes_before_load_and_load_decides_the_rest(database_url: str) -> None:
    async with (
        running(database_url) as service,
        service.cluster("eu-1", region="eu") as eu1,
        service.cluster("eu-2", region="eu") as eu2,
        service.cluster("us-1", region="us") as us,
    ):
        for cluster, cpu in ((eu1, 0.9), (eu2, 0.5), (us, 0.1)):
            await cluster.register()
            await cluster.beat(cpu=cpu)
        for conference, region, expected in (
            ("a", "eu", {"eu-2"}),
            ("b", "us", {"us-1"}),
            ("c", None, {"eu-2", "us-1"}),  # the better of two that are drawn: never the worst
            ("d", "asia", {"eu-2", "us-1"}),
        ):
            await service.create(conference)
            answer = await service.join(conference, **({"region": region} if region else {}))
            assert answer.json()["cluster"] in expected, (conference, answer.text)


async def test_twenty_concurrent_first_joins_make_one_room_per_cluster(database_url: str) -> None:
    async with (
        running(database_url) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        await service.create("standup")
        answers = await asyncio.gather(
            *(service.join("standup", user=f"u{n}", region=("eu", "us")[n % 2]) for n in range(20))
        )
        assert [a.status_code for a in answers] == [200] * 20
        assert {a.json()["cluster"] for a in answers} == {"eu-1", "us-1"}
        assert len(eu.stub.made("create_room")) == len(us.stub.made("create_room")) == 1
        shown = await service.conference("standup")
        assert sorted(p["ordinal"] for p in shown["placements"]) == [1, 2]


async def test_two_services_on_one_database_make_one_room(database_url: str) -> None:
    master_key = b64encode(b"k" * 32).decode()
    async with (
        running(database_url, master_key=master_key) as one,
        running(database_url, master_key=master_key) as two,
        one.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        await one.create("standup")
        answers = await asyncio.gather(*(s.join("standup") for s in (one, two) for _ in range(5)))
        assert len(eu.stub.made("create_room")) == 1
        assert {a.status_code for a in answers} == {200}


async def test_unknown_and_ending_conferences_cannot_be_joined(database_url: str) -> None:
    async with running(database_url) as service:
        answer = await service.join("nope")
        assert (answer.status_code, answer.json()["type"]) == (404, "conference-unknown")


async def test_no_cluster_at_all(database_url: str) -> None:
    async with running(database_url) as service:
        await service.create("standup")
        answer = await service.join("standup")
        assert (answer.status_code, answer.json()["type"]) == (503, "no-cluster")
        assert int(answer.headers["retry-after"]) > 0


async def test_clusters_whose_lease_ran_out_get_nobody(database_url: str) -> None:
    lease = LeaseSettings(ttl=0.4, sweep_interval=60)  # not even swept yet
    async with running(database_url, lease=lease) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        answer = await until(lambda: service.join("standup"), lambda a: a.status_code == 503)
        assert answer.json()["type"] == "no-cluster"


async def test_another_cluster_is_tried_and_nothing_is_left_behind(database_url: str) -> None:
    async with (
        running(database_url) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        eu.stub.behave("create_room", always=Trouble(status=500))
        eu.stub.behave("get_room", always=Trouble(status=500))
        await service.create("standup")
        answer = await service.join("standup", region="eu")
        assert (answer.status_code, answer.json()["cluster"]) == (200, "us-1"), answer.text
        shown = await service.conference("standup")
        assert [p["cluster"] for p in shown["placements"]] == ["us-1"]


async def test_when_every_cluster_fails_the_client_is_told_and_nothing_is_left(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        eu.stub.behave("create_room", always=Trouble(status=500))
        eu.stub.behave("get_room", always=Trouble(status=500))
        await service.create("standup")
        answer = await service.join("standup")
        assert (answer.status_code, answer.json()["type"]) == (502, "cluster-failed")
        assert int(answer.headers["retry-after"]) > 0
        assert (await service.conference("standup"))["placements"] == []
        eu.stub.behave("create_room")
        eu.stub.behave("get_room")
        assert (await service.join("standup")).status_code == 200


async def test_a_cluster_that_hangs_times_out_and_holds_up_nobody_else(database_url: str) -> None:
    join = JoinSettings(timeout=20, cluster_timeout=3.0)
    async with (
        running(database_url, join=join) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        eu.stub.behave("create_room", always=Trouble(hang=True))
        for name in ("slow", "fast"):
            await service.create(name)
        slow = asyncio.create_task(service.join("slow", region="eu"))
        await eu.stub.wait_for(lambda: bool(eu.stub.made("create_room")))
        assert (await service.join("fast", region="us")).json()["cluster"] == "us-1"
        assert (await slow).json()["cluster"] == "us-1"


async def test_a_token_that_does_not_come_is_a_timeout(database_url: str) -> None:
    join = JoinSettings(timeout=10, cluster_timeout=2.0)
    async with running(database_url, join=join) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        assert (await service.join("standup")).status_code == 200
        eu.stub.behave("token", always=Trouble(hang=True))
        answer = await service.join("standup")
        assert (answer.status_code, answer.json()["type"]) == (504, "cluster-timeout")


async def test_a_room_that_the_cluster_lost_is_made_again(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("standup")
        await service.join("standup")
        eu.stub.rooms.clear()
        assert (await service.join("standup")).status_code == 200
        assert len(eu.stub.made("create_room")) == 2


async def test_clusters_without_the_needed_modules_are_passed_over(database_url: str) -> None:
    join = JoinSettings(required_modules=("conference",))
    async with (
        running(database_url, join=join) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        await service.enrolment.put("/v1/clusters/eu-1/capacity/portal")
        await service.enrolment.put("/v1/clusters/us-1/capacity/conference")
        await service.create("standup")
        assert (await service.join("standup", region="eu")).json()["cluster"] == "us-1"
