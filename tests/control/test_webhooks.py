"""Webhooks from the event to the receiver: a real service, a real database, a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, text, update

from control.delivery.attempts import Attempt
from control.delivery.signing import verify
from control.registry import webhook_queue, webhook_tries
from control.registry.store import Store
from control.registry.tables import webhook_deliveries, webhook_lanes
from tests.control.service import running, until
from tests.control.webhook_kit import (
    LOCAL,
    change,
    counted,
    deliveries,
    fetched,
    grow_old,
    hooked,
    local,
    made,
    received,
    refused,
    settled,
    shown,
    under_way,
)
from tests.control.webhook_receiver import receiving

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_an_event_is_delivered_signed_with_an_id_of_its_own(database_url: str) -> None:
    async with hooked(database_url) as (service, receiver, webhook):
        before = datetime.now(UTC) - timedelta(minutes=1)
        await service.create("standup")
        (message,) = await received(receiver, 1)
        assert message["type"] == "conference.created"
        assert message["data"]["conference"] == "standup"
        assert message["data"]["seq"] == 1
        assert message["data"]["type"] == "default"
        assert (
            before < datetime.fromisoformat(message["timestamp"]) < datetime.now(UTC) + timedelta(minutes=1)
        )
        (got,) = receiver.received
        assert got.headers["content-type"] == "application/json"
        now = datetime.now(UTC).timestamp()
        assert verify(got.headers, got.body, webhook["secret"], now=now, tolerance=300)
        view = await settled(service, webhook["id"])
        assert (view["circuit"], view["failures"], view["dead"]) == ("closed", 0, 0)
        assert view["last_success_at"] is not None
        assert "secret" not in view
        (delivery,) = await deliveries(service, webhook["id"])
        assert (delivery["id"], delivery["state"], delivery["tries"]) == (got.id, "delivered", 1)
        assert (delivery["kind"], delivery["seq"], delivery["status"]) == ("conference.created", 1, 200)


async def test_every_event_of_a_join_comes_in_order(database_url: str) -> None:
    async with (
        hooked(database_url) as (service, receiver, _),
        service.cluster("eu-1", region="eu") as eu,
    ):
        await eu.register()
        await service.create("standup")
        assert (await service.join("standup", region="eu")).status_code == 200
        await eu.enter("standup", "p1")
        await eu.report("DELETE", "/rooms/standup/participants/p1")

        async def look() -> list[str]:
            return [each["type"] for each in receiver.taken()]

        kinds = await until(look, lambda seen: "participant.left" in seen)
        assert kinds[0] == "conference.created"
        assert kinds.index("participant.joined") < kinds.index("participant.left")
        numbers = [each["data"]["seq"] for each in receiver.taken()]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) == len(numbers)


async def test_a_message_is_retried_with_the_same_id_and_holds_up_only_its_conference(
    database_url: str,
) -> None:
    failing = True
    async with hooked(database_url, settings=local(failures_to_pause=1000)) as (service, receiver, webhook):
        receiver.answer = lambda m: 500 if failing and m["data"]["conference"] == "bad" else 200
        await service.create("bad")
        for number in range(3):
            await change(service, "bad", number)
        await service.create("good")
        await change(service, "good", 1)
        good = await received(receiver, 2)
        assert {each["data"]["conference"] for each in good} == {"good"}

        async def tries() -> int:
            return sum(1 for each in receiver.received if each.status == 500)

        await until(tries, lambda seen: seen >= 3)
        failed = [each for each in receiver.received if each.status == 500]
        assert {each.message["data"]["seq"] for each in failed} == {1}
        assert len({each.id for each in failed}) == 1
        assert len({each.body for each in failed}) == 1
        (first,) = [
            each
            for each in await deliveries(service, webhook["id"])
            if each["tries"] > 0 and each["conference"] == "bad"
        ]
        assert (first["state"], first["status"], first["error"]) == (
            "pending",
            500,
            "the receiver answered 500",
        )
        failing = False
        await settled(service, webhook["id"])
        bad = [each for each in receiver.taken() if each["data"]["conference"] == "bad"]
        assert [each["data"]["seq"] for each in bad] == [1, 2, 3, 4]


async def test_a_receiver_that_fails_is_left_alone_then_tried_with_one_message(database_url: str) -> None:
    down = True
    settings = local(failures_to_pause=3, pause_base=0.4, pause_cap=0.4)
    async with hooked(database_url, settings=settings) as (service, receiver, webhook):
        receiver.answer = lambda _: 503 if down else 200
        for number in range(10):
            await service.create(f"c{number}")
        view = await until(lambda: shown(service, webhook["id"]), lambda seen: seen["circuit"] == "open")
        assert view["failures"] >= 3
        assert view["paused_until"] is not None
        assert view["last_error"] == "the receiver answered 503"
        attempts = len(receiver.received)
        # Every pause lets one message through, not ten.
        await until(lambda: counted(receiver), lambda seen: seen >= attempts + 2)
        assert receiver.most <= settings.max_per_webhook
        down = False
        view = await settled(service, webhook["id"])
        assert (view["circuit"], view["failures"], view["failing_since"]) == ("closed", 0, None)
        assert len(receiver.taken()) == 10


async def test_what_was_put_off_for_hours_is_due_when_the_receiver_is_back(database_url: str) -> None:
    down = True
    settings = local(failures_to_pause=1, retry_base=3600.0, retry_cap=3600.0)
    async with hooked(database_url, settings=settings) as (service, receiver, webhook):
        receiver.answer = lambda _: 500 if down else 200
        for number in range(5):
            await service.create(f"c{number}")
        await until(lambda: shown(service, webhook["id"]), lambda seen: seen["failures"] >= 5)
        down = False
        await service.create("c5")
        await settled(service, webhook["id"])
        assert len(receiver.taken()) == 6


async def test_410_disables_and_enabling_delivers_what_waited(database_url: str) -> None:
    gone = True
    async with hooked(database_url) as (service, receiver, webhook):
        receiver.answer = lambda _: 410 if gone else 200
        await service.create("a")
        view = await until(lambda: shown(service, webhook["id"]), lambda seen: not seen["enabled"])
        assert (view["disabled_reason"], view["waiting"]) == ("gone", 1)
        audit = (
            await service.operator.get("/v1/audit", params={"subject": f"webhook:{webhook['id']}"})
        ).json()
        assert next((each["actor"], each["action"]) for each in audit["entries"]) == ("control", "disabled")
        await service.create("b")  # not for a webhook that is disabled
        gone = False
        answer = await service.operator.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": True})
        assert answer.json()["enabled"] is True
        assert answer.json()["failures"] == 0
        await settled(service, webhook["id"])
        assert [each["data"]["conference"] for each in receiver.taken()] == ["a"]


async def test_nothing_but_failures_for_long_disables(database_url: str) -> None:
    settings = local(disable_after=0.2, failures_to_pause=2)
    async with hooked(database_url, settings=settings) as (service, receiver, webhook):
        receiver.answer = lambda _: 500
        await service.create("a")
        view = await until(lambda: shown(service, webhook["id"]), lambda seen: not seen["enabled"])
        assert view["disabled_reason"] == "failing"


async def test_a_message_that_is_never_taken_is_a_dead_letter_and_can_be_replayed(
    database_url: str, engine: AsyncEngine
) -> None:
    down = True
    async with hooked(database_url) as (service, receiver, webhook):
        receiver.answer = lambda _: 500 if down else 200
        await service.create("a")
        await until(lambda: counted(receiver), bool)
        await grow_old(engine)
        view = await until(lambda: shown(service, webhook["id"]), lambda seen: seen["dead"] == 1)
        assert view["waiting"] == 0
        (dead,) = await deliveries(service, webhook["id"], state="dead")
        assert dead["done_at"] is not None
        down = False
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{dead['id']}"
        again = await service.operator.post(f"{path}/replay")
        assert again.status_code == 202, again.text
        assert (again.json()["state"], again.json()["tries"]) == ("pending", 0)
        await until(lambda: fetched(service, path), lambda seen: seen["state"] == "delivered")
        assert receiver.taken()[0]["data"]["seq"] == 1
        assert {each.id for each in receiver.received if each.message["data"]["seq"] == 1} == {dead["id"]}


async def test_a_time_is_replayed_from_the_event_log(database_url: str) -> None:
    async with hooked(database_url, events=["conference.*"], settings=local(max_replay=3)) as (
        service,
        receiver,
        webhook,
    ):
        await service.create("a")
        await change(service, "a", 1)
        await settled(service, webhook["id"])
        path = f"/v1/webhooks/{webhook['id']}/replay"
        now = datetime.now(UTC)
        times = {"after": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}
        times["before"] = f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        answer = await service.operator.post(path, json=times)
        assert (answer.status_code, answer.json()) == (202, {"queued": 2})
        await settled(service, webhook["id"])
        taken = receiver.taken()
        assert [each["data"]["seq"] for each in taken] == [1, 2, 1, 2]
        ids = [each.id for each in receiver.received]
        assert ids[:2] == ids[2:]
        # A webhook that was not there gets what happened before it, too.
        async with receiving() as late:
            other = await made(service, url=late.url, events=["conference.changed"])
            answer = await service.operator.post(f"/v1/webhooks/{other['id']}/replay", json=times)
            assert answer.json() == {"queued": 1}
            await received(late, 1)
        nothing = await service.operator.post(path, json=times | {"dead_only": True})
        assert nothing.json() == {"queued": 0}
        await change(service, "a", 2)
        await change(service, "a", 3)
        await settled(service, webhook["id"])
        refused(await service.operator.post(path, json=times), 422, "invalid-request")
        assert (await shown(service, webhook["id"]))["waiting"] == 0  # nothing of it was queued


async def test_dead_letters_of_a_time_are_replayed(database_url: str, engine: AsyncEngine) -> None:
    down = True
    async with hooked(database_url) as (service, receiver, webhook):
        receiver.answer = lambda _: 500 if down else 200
        for name in ("a", "b", "c"):
            await service.create(name)
        await grow_old(engine)
        await until(lambda: shown(service, webhook["id"]), lambda seen: seen["dead"] == 3)
        down = False
        now = datetime.now(UTC)
        body = {
            "after": (now - timedelta(hours=1)).isoformat(),
            "before": (now + timedelta(hours=1)).isoformat(),
            "dead_only": True,
        }
        answer = await service.operator.post(f"/v1/webhooks/{webhook['id']}/replay", json=body)
        assert answer.json() == {"queued": 3}
        await received(receiver, 3)


async def test_a_deleted_webhook_leaves_nothing_behind(database_url: str, engine: AsyncEngine) -> None:
    async with hooked(database_url, settings=local(failures_to_pause=1000)) as (service, receiver, webhook):
        receiver.answer = lambda _: 500
        await service.create("a")
        await until(lambda: counted(receiver), lambda seen: seen > 0)
        assert (await service.operator.delete(f"/v1/webhooks/{webhook['id']}")).status_code == 204

        async def left() -> int:
            async with engine.connect() as connection:
                found = await connection.execute(
                    text(
                        "SELECT (SELECT count(*) FROM webhook_lanes) + "
                        "(SELECT count(*) FROM webhook_deliveries)"
                    )
                )
                return int(found.scalar_one())

        await until(left, lambda seen: seen == 0)


async def test_upkeep_gives_up_what_is_too_much_and_forgets_what_is_old(
    database_url: str, engine: AsyncEngine
) -> None:
    settings = local(max_waiting=3, failures_to_pause=1, pause_base=60.0, pause_cap=60.0)
    async with hooked(database_url, settings=settings) as (service, receiver, webhook):
        receiver.answer = lambda _: 500
        for number in range(6):
            await service.create(f"c{number}")
        view = await until(lambda: shown(service, webhook["id"]), lambda seen: seen["waiting"] == 3)
        assert view["dead"] == 3
        dead = await deliveries(service, webhook["id"], state="dead")
        assert {each["conference"] for each in dead} == {"c0", "c1", "c2"}
        assert {each["error"] for each in dead} <= {
            "too many messages were waiting",
            "the receiver answered 500",
        }
        async with engine.begin() as connection:
            old = func.now() - timedelta(days=31)
            await connection.execute(
                update(webhook_deliveries).where(webhook_deliveries.c.state == "dead").values(done_at=old)
            )
            # What a webhook's deletion and an event at the same moment may leave.
            await connection.execute(
                text("INSERT INTO webhook_lanes (webhook, conference) VALUES ('wh_gone', 'x')")
            )
            await connection.execute(
                text(
                    "INSERT INTO webhook_deliveries (webhook, message, conference, seq, kind, at, body) "
                    "VALUES ('wh_gone', gen_random_uuid(), 'x', 1, 'link.up', now(), '{}')"
                )
            )
        await grow_old(engine)
        view = await until(
            lambda: shown(service, webhook["id"]), lambda seen: (seen["waiting"], seen["dead"]) == (0, 3)
        )

        async def orphans() -> int:
            async with engine.connect() as connection:
                found = await connection.execute(
                    text("SELECT count(*) FROM webhook_deliveries WHERE webhook = 'wh_gone'")
                )
                return int(found.scalar_one())

        await until(orphans, lambda seen: seen == 0)
        dead = await deliveries(service, webhook["id"], state="dead")
        assert {each["conference"] for each in dead} == {"c3", "c4", "c5"}


async def test_a_webhook_gets_no_more_at_once_than_it_may_from_all_replicas(database_url: str) -> None:
    master = base64.b64encode(bytes(32)).decode()
    settings = local(max_per_webhook=2)
    async with (
        receiving() as receiver,
        running(database_url, webhooks=settings, master_key=master) as one,
        running(database_url, webhooks=settings, master_key=master),
    ):
        receiver.hold = asyncio.Event()
        webhook = await made(one, url=receiver.url)
        for number in range(8):
            await one.create(f"c{number}")
        await until(lambda: under_way(receiver), lambda seen: seen == 2)
        receiver.hold.set()
        await settled(one, webhook["id"])
        assert receiver.most == 2
        assert sorted(each["data"]["conference"] for each in receiver.taken()) == [f"c{n}" for n in range(8)]


async def test_nothing_is_lost_made_up_or_overtaken(database_url: str) -> None:
    """Writers that commit or roll back, two replicas, a receiver with moods."""
    master = base64.b64encode(bytes(32)).decode()
    moods, tellers = random.Random(1), 4
    settings = local(max_per_webhook=3)
    async with (
        receiving() as receiver,
        running(database_url, webhooks=settings, master_key=master) as one,
        running(database_url, webhooks=settings, master_key=master),
    ):
        receiver.answer = lambda _: 500 if moods.random() < 0.1 else 200
        webhook = await made(one, url=receiver.url)

        async def tell(seed: int) -> int:
            rng, told = random.Random(seed), 0
            for _ in range(20):
                kept = rng.random() < 0.8
                names = rng.sample(["a", "b", "c"], rng.randint(1, 2))
                async with one.engine.connect() as connection:
                    await connection.execute(
                        text(
                            "SELECT causeway_events(array_agg(name), array_agg('link.up'::text), "
                            "array_agg(jsonb_build_object('kept', CAST(:kept AS boolean)))) "
                            "FROM unnest(CAST(:names AS text[])) AS name"
                        ),
                        {"names": names, "kept": kept},
                    )
                    await (connection.commit() if kept else connection.rollback())
                told += len(names) if kept else 0
            return told

        told = sum(await asyncio.gather(*(tell(seed) for seed in range(tellers))))
        view = await until(lambda: shown(one, webhook["id"]), lambda seen: seen["waiting"] == 0, timeout=50)
        assert view["dead"] == 0
        seen: dict[str, list[int]] = {}
        for message in receiver.taken():
            assert message["data"]["kept"] is True
            seen.setdefault(message["data"]["conference"], []).append(message["data"]["seq"])
        assert sum(len(numbers) for numbers in seen.values()) == told
        for numbers in seen.values():
            assert numbers == list(range(1, len(numbers) + 1))


async def test_what_a_dead_replica_had_claimed_is_taken_over(database_url: str, engine: AsyncEngine) -> None:
    """A claim whose holder never comes back runs out."""
    async with hooked(database_url, settings=local(timeout=0.1)) as (service, receiver, webhook):
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO webhook_lanes (webhook, conference, claimed_by, claimed_until) "
                    "VALUES (:webhook, 'a', gen_random_uuid(), now() + interval '0.5 s')"
                ),
                {"webhook": webhook["id"]},
            )
        await service.create("a")
        await received(receiver, 1)
        await settled(service, webhook["id"])
        assert len(receiver.received) == 1
        async with engine.connect() as connection:
            lanes = await connection.execute(webhook_lanes.select())
            assert lanes.all() == []


async def test_nobody_waits_for_the_claims_of_a_replica_that_is_known_to_be_gone(
    database_url: str, engine: AsyncEngine
) -> None:
    gone, there = uuid.uuid4(), uuid.uuid4()
    async with running(database_url, background=False) as service:
        webhook = (await made(service, url="https://example.com/"))["id"]
        async with engine.begin() as connection:
            for replica, lease in ((gone, "-1 s"), (there, "1 h")):
                await connection.execute(
                    text(
                        "INSERT INTO replicas (id, name, version, revision, duties, lease_expires_at) "
                        f"VALUES (:id, 'r', '1', '0010', '{{}}', now() + interval '{lease}')"
                    ),
                    {"id": replica},
                )
        for name in ("a", "b"):
            await service.create(name)
        store = Store(engine)

        async def claim(*, replica: uuid.UUID) -> list[webhook_queue.Held]:
            return await store.write(webhook_queue.claim, limit=1, per_webhook=8, ttl=3600.0, replica=replica)

        [lost] = await claim(replica=gone)
        [kept] = await claim(replica=there)
        assert {lost.conference, kept.conference} == {"a", "b"}
        assert await claim(replica=there) == []
        assert await store.write(webhook_queue.give_back, there, limit=10) == 0
        assert await store.write(webhook_queue.give_back, gone, limit=10) == 1
        [again] = await claim(replica=there)
        assert (again.webhook, again.conference) == (webhook, lost.conference)
        # Who was only frozen learns it before it sends, and again before it writes down anything.
        assert await store.read(webhook_tries.load, lost) is None
        late = await store.write(
            webhook_tries.settle, lost, uuid.uuid4(), Attempt(status=200), LOCAL, go_on=True
        )
        assert late is None
        loaded = await store.read(webhook_tries.load, again)
        assert isinstance(loaded, webhook_tries.Loaded)
        assert (loaded.message.conference, loaded.message.seq) == (lost.conference, 1)
