"""`causeway conference plan` and a cluster's breaker, against a real server on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.cascade_settings import BreakerSettings, CascadeSettings
from tests.causeway.test_cli_remote import environment, terminal
from tests.control.owt_stub import Trouble
from tests.control.service import until

if TYPE_CHECKING:
    import pytest

__all__ = ["environment"]

PATIENT = CascadeSettings(breaker=BreakerSettings(failures=2, rest_base=30.0, rest_cap=60.0))


async def test_the_plan_of_a_conference_and_the_breaker_of_a_cluster(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        terminal(database_url, monkeypatch, capsys, cascade=PATIENT) as at,
        at.service.cluster("eu-1", region="eu") as eu,
        at.service.cluster("us-1", region="us") as us,
    ):
        assert "conference-unknown" in await at.error("conference", "plan", "nope")
        await eu.register()
        await us.register()
        await at.service.create("standup")
        await eu.enter("standup", "p1")
        await us.report("PUT", "/rooms/standup", {"token": "t"})
        said = await at.out("conference", "plan", "standup")
        for word in ("mesh", "us-1 → eu-1", "fetch-bridges", "nobody has joined on us-1 yet", "remove-room"):
            assert word in said
        plan = await at.read("conference", "plan", "standup")
        assert [p["cluster"] for p in plan["placements"]] == ["eu-1", "us-1"]
        # A room for every conference that is not made.
        us.stub.behave("create_room", always=Trouble(status=500))
        us.stub.behave("get_room", always=Trouble(status=500))
        for name in ("retro", "review"):
            await at.service.create(name)
            await at.service.join(name, region="us")
        await until(
            lambda: at.service.operator.get("/v1/clusters/us-1"),
            lambda seen: (seen.json()["breaker"] or {}).get("state") == "open",
        )
        assert "open breaker after 2 failures: cluster-unreachable" in await at.out("cluster", "show", "us-1")
