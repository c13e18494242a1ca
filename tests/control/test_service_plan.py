"""The plan of a conference over HTTP: what is due, what waits for what, and who is left alone."""

from __future__ import annotations

from typing import Any

from control.cascade_settings import BreakerSettings, CascadeSettings
from tests.control.owt_stub import Trouble
from tests.control.service import Service, running, until

PATIENT = CascadeSettings(breaker=BreakerSettings(failures=2, rest_base=30.0, rest_cap=60.0))


async def planned(service: Service, conference: str = "standup") -> dict[str, Any]:
    answer = await service.application.get(f"/v1/conferences/{conference}/plan")
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def test_what_waits_says_for_what(database_url: str) -> None:
    async with (
        running(database_url, background=False) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        assert (await service.application.get("/v1/conferences/nope/plan")).json()["type"] == (
            "conference-unknown"
        )
        await eu.register()
        await us.register()
        await service.create("standup")
        empty = await planned(service)
        assert (empty["placements"], empty["due"], empty["waiting"]) == ([], [], [])
        assert empty["next_look_at"] is None
        await eu.enter("standup", "p1")
        await us.report("PUT", "/rooms/standup", {"token": "t"})
        plan = await planned(service)
        assert plan["topology"] == {
            "asked": "mesh",
            "used": "mesh",
            "reason": plan["topology"]["reason"],
            "links": [["us-1", "eu-1"]],
        }
        assert [(p["cluster"], p["alive"], p["participants"]) for p in plan["placements"]] == [
            ("eu-1", True, 1),
            ("us-1", True, 0),
        ]
        assert {(w["action"], w["why"]) for w in plan["waiting"]} == {
            ("remove-room", "nobody is there; somebody may still come"),
            ("fetch-bridges", "nobody has joined on us-1 yet"),
        }
        assert plan["due"] == []
        await us.enter("standup", "p2")
        plan = await planned(service)
        assert plan["due"] == [{"action": "fetch-bridges", "on": {"dialer": "us-1", "listener": "eu-1"}}]
        await service.expire("eu-1")
        plan = await planned(service)
        assert [(w["action"], w["until"], w["why"]) for w in plan["waiting"]] == [
            ("fetch-bridges", None, "eu-1 is offline")
        ]


async def test_a_cluster_that_fails_is_left_alone_and_that_is_shown(database_url: str) -> None:
    async with (
        running(database_url, cascade=PATIENT) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        assert (await service.operator.get("/v1/clusters/eu-1")).json()["breaker"] is None
        eu.stub.behave("create_room", *[Trouble(status=500)] * 100)
        eu.stub.behave("get_room", *[Trouble(status=500)] * 100)
        for name in ("standup", "retro"):
            await service.create(name)
            await service.join(name, region="eu")
        answer = await until(
            lambda: service.operator.get("/v1/clusters/eu-1"), lambda seen: seen.json()["breaker"] is not None
        )
        shown = await until(
            lambda: service.operator.get("/v1/clusters"),
            lambda seen: seen.json()["clusters"][0]["breaker"]["state"] == "open",
        )
        assert answer.json()["id"] == "eu-1"
        breaker = shown.json()["clusters"][0]["breaker"]
        assert breaker["failures"] == 2
        assert breaker["error"].startswith("cluster-unreachable")
        assert breaker["retry_at"] is not None
