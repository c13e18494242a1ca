"""Placement as applications meet it: reservations, limits, hints, decisions, Idempotency-Key."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select

from causeway.api import Location
from causeway.errors import ConfigError
from control.drivers.causeway import CausewayDriver
from control.http.hints import Hints
from control.placement_settings import PlacementSettings, RegionSettings
from control.registry import reservations as taking
from control.registry.tables import decisions, placements, reservations, seats
from control.settings import JoinSettings
from tests.control.owt_stub import Trouble
from tests.control.service import running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.control.service import Service

MASTER_KEY = b64encode(b"k" * 32).decode()
PORTAL = {"host": "127.0.0.1", "port": 9000, "secure": False}


@asynccontextmanager
async def equal_clusters(
    database_url: str, number: int, *, placement: PlacementSettings | None = None, **registration: Any
) -> AsyncIterator[tuple[Service, Service]]:
    """Two services on one database, and a conference with a room on each of so many clusters."""
    async with (
        running(database_url, master_key=MASTER_KEY, placement=placement or PlacementSettings()) as one,
        running(database_url, master_key=MASTER_KEY) as two,
        one.cluster("c", region="eu") as stub,
    ):
        await one.create("big")
        for n in range(number):
            stub.id = f"c{n}"
            stub.instance = f"i{n}"
            await stub.register(driver="causeway", portal=PORTAL, **registration)
        async with one.engine.begin() as connection:
            await connection.execute(
                insert(placements),
                [
                    {
                        "conference": "big",
                        "cluster": f"c{n}",
                        "ordinal": n + 1,
                        "state": "ready",
                        "room": "big",
                    }
                    for n in range(number)
                ],
            )
        yield one, two


async def reserved(service: Service) -> dict[str, int]:
    async with service.engine.connect() as connection:
        rows = await connection.execute(
            select(reservations.c.cluster, func.count().label("n")).group_by(reservations.c.cluster)
        )
        counted = {row.cluster: row.n for row in rows.all()}
        kept = await connection.execute(select(seats.c.cluster, seats.c.reserved))
        assert {row.cluster: row.reserved for row in kept.all() if row.reserved} == counted
    return counted


async def test_a_thousand_joins_through_two_replicas_spread_evenly(database_url: str) -> None:
    async with equal_clusters(database_url, 10) as (one, two):
        answers = await asyncio.gather(
            *((one, two)[n % 2].join("big", user=f"u{n}", region="eu") for n in range(1000))
        )
        assert {a.status_code for a in answers} == {200}
        taken = await reserved(one)
        assert sum(taken.values()) == 1000
        assert min(taken.values()) >= 90
        assert max(taken.values()) <= 110


async def test_limits_hold_over_two_replicas(database_url: str) -> None:
    async with equal_clusters(database_url, 4, limits={"participants": 25}) as (one, two):
        answers = await asyncio.gather(
            *((one, two)[n % 2].join("big", user=f"u{n}", region="eu") for n in range(150))
        )
        told = [a.status_code for a in answers]
        assert (told.count(200), told.count(503)) == (100, 50)
        assert await reserved(one) == {f"c{n}": 25 for n in range(4)}
        refused = next(a for a in answers if a.status_code == 503)
        assert refused.json()["type"] == "no-cluster"
        assert "full (25 participants)" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0


async def test_a_seat_is_given_back_if_nobody_comes_and_becomes_the_participant_else(
    database_url: str,
) -> None:
    placement = PlacementSettings(reservation_ttl=1.0, sweep_interval=0.05)
    async with (
        running(database_url, placement=placement) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register(limits={"participants": 1})
        await service.create("k")
        assert (await service.join("k", user="ada")).status_code == 200
        assert (await service.join("k", user="bob")).status_code == 503
        await eu.enter("k", "p1", user="ada")
        assert await reserved(service) == {}
        assert (await service.join("k", user="bob")).status_code == 503
        await eu.report("DELETE", "/rooms/k/participants/p1")
        assert (await service.join("k", user="bob")).status_code == 200
        assert (await service.join("k", user="eve")).status_code == 503
        await until(lambda: service.join("k", user="eve"), lambda a: a.status_code == 200)


async def test_a_cluster_that_makes_no_token_gets_its_seat_back(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("k")
        eu.stub.behave("token", always=Trouble(status=500))
        assert (await service.join("k")).status_code == 502
        assert await reserved(service) == {}


async def test_a_token_is_signed_while_its_seat_is_taken_and_nobody_gets_one_without_a_seat(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    take, sign = taking.take, CausewayDriver.sign_token

    async def listened_take(*args: Any, **named: Any) -> Any:
        said.append("seat asked for")
        found = await take(*args, **named)
        said.append("answered")
        return found

    def listened_sign(self: CausewayDriver, *args: Any, **named: Any) -> Any:
        said.append("token")
        return sign(self, *args, **named)

    monkeypatch.setattr(taking, "take", listened_take)
    monkeypatch.setattr(CausewayDriver, "sign_token", listened_sign)
    remembering = PlacementSettings(max_age=60.0)
    async with equal_clusters(database_url, 1, placement=remembering) as (one, two):
        answer = await one.join("big", region="eu")
        assert answer.status_code == 200
        assert answer.json()["token"]
        assert said == ["seat asked for", "token", "answered"]
        await two.application.patch("/v1/conferences/big", json={"locked": True})
        answer = await one.join("big", region="eu")
        assert (answer.status_code, answer.json()["type"]) == (409, "conference-locked")
        assert said == ["seat asked for", "token", "answered"] * 2
        assert await reserved(one) == {"c0": 1}


async def test_a_database_that_does_not_answer_keeps_nobody_longer_than_a_join_may_take(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hanging(*_args: Any, **_named: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with (
        running(database_url, join=JoinSettings(timeout=0.5, cluster_timeout=0.2)) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register(driver="causeway", portal=PORTAL)
        await service.create("k")
        await until(lambda: service.join("k"), lambda answer: answer.status_code == 200)
        monkeypatch.setattr(taking, "take", hanging)
        answer = await service.join("k")
        assert asked.is_set()
        assert (answer.status_code, answer.json()["type"]) == (504, "cluster-timeout")
        waiting = await service.join("k")  # its lane is busy for ever
        assert waiting.status_code == 504


async def test_conferences_per_cluster_are_limited(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register(limits={"conferences": 1})
        for name in ("a", "b"):
            await service.create(name)
        told = await asyncio.gather(service.join("a"), service.join("b"))
        assert sorted(a.status_code for a in told) == [200, 503]


async def test_a_locked_a_full_and_a_strict_conference(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        body = {"id": "k", "participant_limit": 3}
        assert (await service.application.post("/v1/conferences", json=body)).status_code == 201
        told = await asyncio.gather(*(service.join("k", user=f"u{n}") for n in range(8)))
        assert sorted(a.status_code for a in told) == [200] * 3 + [409] * 5
        assert {a.json()["type"] for a in told if a.status_code == 409} == {"conference-full"}
        answer = await service.join("k", role="king")
        assert (answer.status_code, answer.json()["type"]) == (403, "role-not-allowed")
        await service.application.patch("/v1/conferences/k", json={"locked": True})
        answer = await service.join("k")
        assert (answer.status_code, answer.json()["type"]) == (409, "conference-locked")


async def test_decisions_are_explained_and_kept(database_url: str) -> None:
    placement = PlacementSettings(decisions_kept=3, sweep_interval=0.05)
    async with (
        running(database_url, placement=placement) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        await service.operator.put("/v1/clusters/us-1/block", json={"reason": "test"})
        await service.create("k")
        answer = await service.application.post(
            "/v1/conferences/k/join?explain=true", json={"user": "ada", "region": "us"}
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()["decision"]
        assert (told["cluster"], told["placed"], told["considered"]) == ("eu-1", "any", 2)
        assert told["rejections"] == [
            {
                "filter": "blocked",
                "reason": "an operator has blocked it",
                "count": 1,
                "clusters": ["us-1"],
            }
        ]
        assert told["scores"][0]["points"]["load"] > 0
        for n in range(5):
            await service.join("k", user=f"u{n}")
        listed = await service.application.get("/v1/conferences/k/decisions")
        assert [d["user"] for d in listed.json()["decisions"]][:3] == ["u4", "u3", "u2"]

        async def kept() -> int:
            async with service.engine.connect() as connection:
                return int((await connection.scalars(select(func.count()).select_from(decisions))).one())

        await until(kept, lambda n: n == 3)
        await service.application.delete("/v1/conferences/k")
        await until(kept, lambda n: n == 0)
        answer = await service.application.get("/v1/conferences/k/decisions")
        assert answer.status_code == 404


async def test_join_by_id_makes_the_conference(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        answer = await service.application.post("/v1/join", json={"id": "new", "type": "meeting"})
        assert answer.status_code == 200, answer.text
        assert {"ip": "127.0.0.1", "room": "new"}.items() <= answer.json().items()
        assert (await service.conference("new"))["type"] == "meeting"
        answer = await service.application.post("/v1/join", json={"id": "new"})
        assert answer.status_code == 200
        answer = await service.application.post("/v1/join", json={"id": "other", "type": "nope"})
        assert (answer.status_code, answer.json()["type"]) == (404, "template-unknown")
        assert "meeting" in answer.json()["detail"]


async def test_the_same_idempotency_key_gets_the_same_answer(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("k")

        async def join(user: str, key: str) -> Any:
            return await service.application.post(
                "/v1/conferences/k/join", json={"user": user}, headers={"Idempotency-Key": key}
            )

        first, second = await join("ada", "k1"), await join("ada", "k1")
        assert first.status_code == 200, first.text
        assert first.json() == second.json()
        assert second.headers["cache-control"] == "no-store"
        assert len(eu.stub.made("token")) == 1
        other = await join("bob", "k1")
        assert (other.status_code, other.json()["type"]) == (422, "idempotency-mismatch")
        assert (await join("ada", "k2")).json() != first.json()
        bad = await join("ada", "with space")
        assert (bad.status_code, bad.json()["type"]) == (422, "invalid-request")
        async with service.engine.connect() as connection:
            stored = (await connection.exec_driver_sql("SELECT answer FROM kept_answers")).scalars().all()
        assert all(first.json()["token"].encode() not in bytes(each) for each in stored)


async def test_duplicates_at_the_same_time_are_done_once(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        await service.create("k")
        await service.join("k")
        told = await asyncio.gather(
            *(
                service.application.post(
                    "/v1/conferences/k/join", json={"user": "ada"}, headers={"Idempotency-Key": "same"}
                )
                for _ in range(8)
            )
        )
        good = [a.json() for a in told if a.status_code == 200]
        assert good
        assert all(each == good[0] for each in good)
        assert {a.json()["type"] for a in told if a.status_code != 200} <= {"idempotency-busy"}
        assert len(eu.stub.made("token")) == 2


async def test_a_refusal_is_not_kept(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        headers = {"Idempotency-Key": "again"}
        await service.create("k")
        path = "/v1/conferences/k/join"
        first = await service.application.post(path, json={"user": "ada"}, headers=headers)
        assert first.status_code == 503
        assert "no cluster is registered" in first.json()["detail"]
        await eu.register()
        assert (
            await service.application.post(path, json={"user": "ada"}, headers=headers)
        ).status_code == 200


async def test_hints_of_every_kind_and_the_regions_listed(database_url: str) -> None:
    regions = {
        "eu": RegionSettings(
            groups=("west",), location=Location(lat=50, lon=8), ping_urls=("https://eu.example/ping",)
        ),
        "uk": RegionSettings(groups=("west",)),
        "us": RegionSettings(location=Location(lat=39, lon=-77)),
    }
    placement = PlacementSettings(
        country_header="X-Country", trusted_proxies=("127.0.0.0/8",), countries={"US": "us", "GB": "uk"}
    )
    async with (
        running(database_url, regions=regions, placement=placement) as service,
        service.cluster("eu-1", region="eu") as eu,
        service.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register(ping_url="https://us.example/ping")

        async def way(hint: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[str, str]:
            conference = f"k{len(eu.stub.made('create_room')) + len(us.stub.made('create_room'))}"
            answer = await service.application.post(
                "/v1/join", json={"id": conference, **hint}, headers=headers or {}
            )
            assert answer.status_code == 200, answer.text
            return answer.json()["cluster"], answer.json()["placed"]

        assert await way({"region": "us"}) == ("us-1", "region")
        assert await way({"region": "uk"}) == ("eu-1", "group")
        assert await way({"location": {"lat": 40, "lon": -74}}) == ("us-1", "distance")
        assert await way({"latencies": {"eu": 20, "us": 110}}) == ("eu-1", "region")
        assert await way({}, {"X-Country": "us"}) == ("us-1", "region")
        assert await way({}, {"X-Country": "GB"}) == ("eu-1", "group")
        assert await way({"region": "eu"}, {"X-Country": "US"}) == ("eu-1", "region")
        listed = (await service.application.get("/v1/regions")).json()["regions"]
        assert [(r["name"], r["groups"], r["ping_urls"], r["clusters"]) for r in listed] == [
            ("eu", ["west"], ["https://eu.example/ping"], 1),
            ("uk", ["west"], [], 0),
            ("us", [], ["https://us.example/ping"], 1),
        ]


async def test_nobody_but_trusted_proxies_is_believed(database_url: str) -> None:
    placement = PlacementSettings(
        country_header="X-Country", trusted_proxies=("10.0.0.0/8",), countries={"US": "us"}
    )
    async with (
        running(database_url, placement=placement) as service,
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        await service.create("k")
        answer = await service.application.post(
            "/v1/conferences/k/join?explain=true", json={"user": "a"}, headers={"X-Country": "US"}
        )
        assert answer.json()["decision"]["home"] is None


async def test_a_draining_cluster_gets_nothing_new_and_keeps_what_it_has(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
        await eu.register()
        for name in ("old", "new"):
            await service.create(name)
        assert (await service.join("old")).status_code == 200
        answer = await service.operator.post("/v1/clusters/eu-1/drain", json={})
        assert answer.status_code < 300, answer.text
        assert (await service.join("old")).status_code == 200
        refused = await service.join("new")
        assert (refused.status_code, refused.json()["detail"]) == (503, "eu-1: it is draining")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PlacementSettings(trusted_proxies=("nonsense",)), "trusted_proxies: 'nonsense'"),
        (PlacementSettings(geo_database="/nowhere/at/all.mmdb"), "all.mmdb: No such file or directory"),
    ],
)
def test_hints_that_cannot_be_read_are_one_clear_line(settings: PlacementSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Hints(settings)
    assert "\n" not in str(caught.value)
