"""Clusters that register, beat, restart, fall silent, drain, and clients that join them, in any order.

Whatever happens, on a real database: no cluster gets more than its limits, no epoch goes back, nobody takes a
living deployment's id, and who is drained or blocked gets nothing new.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from causeway.api import EPOCH_HEADER
from control.cluster_settings import LeaseSettings
from control.settings import JoinSettings
from tests.control.owt_stub import OwtStub
from tests.control.service import Service, running

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.databases import PostgresForTests

T = TypeVar("T")

CLUSTERS = {"eu-1": "eu", "eu-2": "eu", "us-1": "us"}
LIMITS = {"participants": 2, "conferences": 2}
CONFERENCES = ("a", "b", "c")
ANY_CLUSTER = st.sampled_from(sorted(CLUSTERS))

USAGE = text("""
SELECT clusters.id, clusters.epoch, clusters.state,
    (SELECT count(*) FROM participants WHERE cluster = clusters.id)
        + (SELECT count(*) FROM reservations WHERE cluster = clusters.id AND expires_at > clock_timestamp())
        AS people,
    (SELECT count(*) FROM placements WHERE cluster = clusters.id) AS conferences
FROM clusters
""")


class Registry(RuleBasedStateMachine):
    def __init__(self, postgres: PostgresForTests) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = postgres.migrated()
        self.stack = AsyncExitStack()
        self.service: Service = self.run(self.start(self.database.__enter__()))
        self.epochs: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        """Deployments whose leases hold."""
        self.closed: set[str] = set()
        """Drained or blocked."""
        self.invited: list[tuple[str, str, str]] = []
        """(cluster, conference, user) of those who were sent there and have not arrived."""
        self.present: list[tuple[str, str, str]] = []
        self.users = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def start(self, url: str) -> Service:
        self.stubs = {name: await self.stack.enter_async_context(OwtStub()) for name in CLUSTERS}
        return await self.stack.enter_async_context(
            running(
                url,
                lease=LeaseSettings(ttl=600, sweep_interval=0.01, gather=0),
                join=JoinSettings(required_modules=(), timeout=5, cluster_timeout=2),
            )
        )

    def teardown(self) -> None:
        try:
            self.run(self.stack.aclose())
        finally:
            self.runner.close()
            self.database.__exit__(None, None, None)

    async def ask(self, method: str, path: str, body: Any = None, *, epoch: int | None = None) -> Any:
        headers = {} if epoch is None else {EPOCH_HEADER: str(epoch)}
        return await self.service.operator.request(method, path, json=body, headers=headers)

    def forget_people(self, cluster: str) -> None:
        self.invited = [each for each in self.invited if each[0] != cluster]
        self.present = [each for each in self.present if each[0] != cluster]

    # --- clusters ---------------------------------------------------------------------------------

    @rule(cluster=ANY_CLUSTER, deployment=st.sampled_from(["d1", "d1", "d2"]), start=st.sampled_from("xxy"))
    def register(self, cluster: str, deployment: str, start: str) -> None:
        self.register_as(cluster, deployment, start)

    @initialize()
    def register_some(self) -> None:
        for cluster in ("eu-1", "us-1"):
            self.register_as(cluster, "d1", "x")

    def register_as(self, cluster: str, deployment: str, start: str) -> None:
        stub = self.stubs[cluster]
        body = {
            "region": CLUSTERS[cluster],
            "rest_url": stub.url,
            "service_id": stub.service_id,
            "service_key": stub.service_key,
            "instance": deployment,
            "incarnation": f"{deployment}-{start}",
            "limits": LIMITS,
        }
        answer = self.run(self.ask("PUT", f"/v1/clusters/{cluster}", body))
        owner = self.owners.get(cluster)
        if owner is not None and owner.partition("-")[0] != deployment:
            assert (answer.status_code, answer.json()["type"]) == (409, "cluster-claimed")
            return
        assert answer.status_code == 200, answer.text
        epoch = answer.json()["epoch"]
        if owner == f"{deployment}-{start}":
            assert epoch == self.epochs[cluster]
        else:
            assert epoch > self.epochs.get(cluster, 0)
            self.forget_people(cluster)
        self.owners[cluster] = f"{deployment}-{start}"
        self.epochs[cluster] = epoch

    @rule(cluster=ANY_CLUSTER, behind=st.sampled_from([0, 0, 1]), people=st.integers(0, 3))
    def beat(self, cluster: str, behind: int, people: int) -> None:
        epoch = self.epochs.get(cluster, 1) - behind
        load = {"load": {"participants": people}}
        answer = self.run(self.ask("POST", f"/v1/clusters/{cluster}/heartbeat", load, epoch=epoch))
        if cluster in self.owners and behind == 0:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code in {404, 409}, answer.text

    @rule(cluster=ANY_CLUSTER, method=st.sampled_from(["PUT", "DELETE"]))
    def capacity(self, cluster: str, method: str) -> None:
        answer = self.run(self.ask(method, f"/v1/clusters/{cluster}/capacity/webrtc"))
        assert answer.status_code == 204

    @rule(cluster=ANY_CLUSTER)
    def fall_silent(self, cluster: str) -> None:
        self.run(self.service.expire(cluster))
        self.owners.pop(cluster, None)
        self.forget_people(cluster)
        self.run(self.swept())

    async def swept(self) -> None:
        gone = text("SELECT count(*) FROM clusters WHERE state = 'online' AND lease_expires_at <= now()")
        async with asyncio.timeout(10):
            while True:
                async with self.service.engine.connect() as connection:
                    if not await connection.scalar(gone):
                        return
                await asyncio.sleep(0.01)

    @rule(cluster=ANY_CLUSTER)
    def leave(self, cluster: str) -> None:
        assert self.run(self.ask("DELETE", f"/v1/clusters/{cluster}")).status_code == 204
        self.owners.pop(cluster, None)
        self.forget_people(cluster)

    @rule(
        cluster=ANY_CLUSTER, how=st.sampled_from(["POST drain", "DELETE drain", "PUT block", "DELETE block"])
    )
    def close(self, cluster: str, how: str) -> None:
        method, what = how.split()
        answer = self.run(self.ask(method, f"/v1/clusters/{cluster}/{what}"))
        assert answer.status_code == (
            404 if cluster not in self.epochs else 204 if method == "DELETE" else 200
        )
        if cluster in self.epochs:
            (self.closed.discard if method == "DELETE" else self.closed.add)(f"{what} {cluster}")

    # --- clients ----------------------------------------------------------------------------------

    @rule(
        conference=st.sampled_from(CONFERENCES), region=st.sampled_from(["eu", "us"]), count=st.integers(1, 3)
    )
    def join(self, conference: str, region: str, count: int) -> None:
        """Several at once: seats are taken in one go or not at all."""
        self.run(self.join_all(conference, region, count))

    async def join_all(self, conference: str, region: str, count: int) -> None:
        await self.service.create(conference)
        before = await self.placed(conference)
        names = [f"user-{self.users + index}" for index in range(count)]
        self.users += count
        answers = await asyncio.gather(
            *(self.service.join(conference, user=name, region=region) for name in names)
        )
        for name, answer in zip(names, answers, strict=True):
            assert answer.status_code in {200, 503}, answer.text
            if answer.status_code == 200:
                cluster = answer.json()["cluster"]
                assert cluster in self.owners
                assert f"block {cluster}" not in self.closed
                assert f"drain {cluster}" not in self.closed or cluster in before
                self.invited.append((cluster, conference, name))

    async def placed(self, conference: str) -> set[str]:
        view = await self.service.conference(conference)
        return {each["cluster"] for each in view["placements"]}

    @rule()
    def arrive(self) -> None:
        if not self.invited:
            return
        who = cluster, conference, user = self.invited.pop()
        base, epoch = f"/v1/clusters/{cluster}/rooms/{conference}", self.epochs[cluster]
        told = [
            (base, {"token": f"token of {conference} there"}),
            (f"{base}/participants/{user}", {"user": user, "role": "presenter"}),
        ]
        for path, body in told:
            answer = self.run(self.ask("PUT", path, body, epoch=epoch))
            assert answer.status_code == 204, answer.text
        self.present.append(who)

    @rule()
    def depart(self) -> None:
        if self.present:
            cluster, conference, user = self.present.pop(0)
            path = f"/v1/clusters/{cluster}/rooms/{conference}/participants/{user}"
            answer = self.run(self.ask("DELETE", path, epoch=self.epochs[cluster]))
            assert answer.status_code == 204, answer.text

    @rule()
    def never_show_up(self) -> None:
        """The seats of all who were sent somewhere and did not arrive are free again."""
        self.invited.clear()
        self.run(self.expire_reservations())

    async def expire_reservations(self) -> None:
        async with self.service.engine.begin() as connection:
            await connection.execute(text("UPDATE reservations SET expires_at = clock_timestamp()"))

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def limits_and_epochs_hold(self) -> None:
        for row in self.run(self.usage()):
            assert row.people <= LIMITS["participants"], row
            assert row.conferences <= LIMITS["conferences"], row
            assert row.epoch == self.epochs[row.id], row
            assert (row.state == "online") == (row.id in self.owners), row

    async def usage(self) -> list[Any]:
        async with self.service.engine.connect() as connection:
            return list((await connection.execute(USAGE)).all())


@pytest.mark.timeout(300)
def test_the_registry_in_any_order(postgres: PostgresForTests) -> None:
    class Machine(Registry):
        def __init__(self) -> None:
            super().__init__(postgres)

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=8, stateful_step_count=25, deadline=None, print_blob=True)
    )
