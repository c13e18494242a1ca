"""The central service in the test's own event loop, on a real database; clusters are real HTTP servers.

async with running(database_url) as service, service.cluster("eu-1", region="eu") as eu:
    await eu.register()
    answer = await service.application.post("/v1/conferences/standup/join", json={"user": "ada"})
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from sqlalchemy import func, update

from causeway.api import EPOCH_HEADER
from causeway.keys import KINDS, KeyKind, new_key
from control.app import Control, build
from control.rate_settings import FailureRate, RateSettings
from control.registry.database import Database, StateSettings, create_engine
from control.registry.tables import clusters
from control.settings import (
    ControlSettings,
    KeySettings,
    LeaseSettings,
    ReconcileSettings,
    Settings,
)
from tests.control.owt_stub import OwtStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

QUICK = ReconcileSettings(retry_base=0.05, retry_cap=0.2, poll_interval=0.1)


@dataclass
class Service:
    control: Control
    engine: AsyncEngine
    keys: dict[KeyKind, str]
    clients: dict[KeyKind | None, httpx2.AsyncClient] = field(default_factory=dict)

    @property
    def operator(self) -> httpx2.AsyncClient:
        return self.clients["operator"]

    @property
    def application(self) -> httpx2.AsyncClient:
        return self.clients["application"]

    @property
    def enrolment(self) -> httpx2.AsyncClient:
        return self.clients["enrolment"]

    @property
    def nobody(self) -> httpx2.AsyncClient:
        return self.clients[None]

    @asynccontextmanager
    async def cluster(self, name: str, *, region: str, **stub: Any) -> AsyncIterator[Cluster]:
        async with OwtStub(portal=f"127.0.0.1:{8000 + len(name)}", **stub) as owt:
            yield Cluster(id=name, region=region, stub=owt, api=self.enrolment)

    async def conference(self, name: str) -> dict[str, Any]:
        answer = await self.application.get(f"/v1/conferences/{name}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def expire(self, cluster: str) -> None:
        """Let the cluster's lease run out now."""
        async with self.engine.begin() as connection:
            await connection.execute(
                update(clusters).where(clusters.c.id == cluster).values(lease_expires_at=func.now())
            )

    async def create(self, name: str) -> None:
        answer = await self.application.post("/v1/conferences", json={"id": name})
        assert answer.status_code in {200, 201}, answer.text

    async def join(self, conference: str, **request: Any) -> httpx2.Response:
        return await self.application.post(
            f"/v1/conferences/{conference}/join", json={"user": "ada"} | request
        )


@dataclass
class Cluster:
    """A cluster: the stub's management API, and what it says to the central service."""

    id: str
    region: str
    stub: OwtStub
    api: httpx2.AsyncClient
    instance: str = "d1"
    incarnation: str = "i1"
    epoch: int = 0
    event_port: int = 7700

    async def register(self, **changes: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "region": self.region,
            "rest_url": self.stub.url,
            "service_id": self.stub.service_id,
            "service_key": self.stub.service_key,
            "instance": self.instance,
            "incarnation": self.incarnation,
            "event_bridge": {"host": "127.0.0.1", "port": self.event_port},
        }
        if self.stub.fingerprints:
            body["event_bridge"]["fingerprint"] = "e" * 64
        answer = await self.api.put(f"/v1/clusters/{self.id}", json=body | changes)
        assert answer.status_code == 200, answer.text
        lease: dict[str, Any] = answer.json()
        self.epoch = lease["epoch"]
        return lease

    async def send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        headers = {EPOCH_HEADER: str(self.epoch)}
        return await self.api.request(method, f"/v1/clusters/{self.id}{path}", json=body, headers=headers)

    async def report(self, method: str, path: str, body: Any = None) -> None:
        answer = await self.send(method, path, body)
        assert answer.status_code == 204, answer.text

    async def beat(self, **load: Any) -> httpx2.Response:
        return await self.send("POST", "/heartbeat", {"load": load})

    async def enter(self, room: str, participant: str, *, user: str = "ada") -> None:
        """What a cluster reports when its first client has joined."""
        await self.report("PUT", f"/rooms/{room}", {"token": f"room-token-of-{self.id}"})
        body = {"user": user, "role": "presenter"}
        await self.report("PUT", f"/rooms/{room}/participants/{participant}", body)

    async def link(self, room: str, peer: str, state: str) -> None:
        await self.report("PUT", f"/rooms/{room}/links/{peer}", {"state": state})


@asynccontextmanager
async def running(database_url: str, *, background: bool = True, **control: Any) -> AsyncIterator[Service]:
    """Run the service; without `background` neither the reconciler nor the sweeper does anything."""
    keys: dict[KeyKind, str] = {kind: new_key(kind) for kind in KINDS}
    control.setdefault("reconcile", QUICK)
    control.setdefault("lease", LeaseSettings(ttl=30.0, sweep_interval=0.05))
    control.setdefault("keys", KeySettings(**keys))
    control.setdefault("rate", RateSettings(failures=FailureRate(rate=1000, burst=1000)))
    engine = create_engine(database_url)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(control=ControlSettings(**control), state=StateSettings(directory=folder))
        try:
            database = Database(engine=engine, url=database_url, embedded=False)
            async with build(settings, database) as built:
                service = Service(control=built, engine=engine, keys=keys)
                task = asyncio.create_task(built.run()) if background else None
                try:
                    await _connect(service)
                    yield service
                finally:
                    for client in service.clients.values():
                        await client.aclose()
                    if task is not None:
                        task.cancel()
                        with suppress(asyncio.CancelledError):
                            await task
        finally:
            await engine.dispose()


async def _connect(service: Service) -> None:
    for kind in (*KINDS, None):
        headers = {} if kind is None else {"Authorization": f"Bearer {service.keys[kind]}"}
        service.clients[kind] = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=service.control.app),
            base_url="http://control.test",
            headers=headers,
            timeout=30,
        )


async def until(
    look: Callable[[], Awaitable[Any]], condition: Callable[[Any], bool], *, timeout: float = 15.0
) -> Any:
    """Look again and again until what is seen meets the condition; return it."""
    seen: Any = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                seen = await look()
                if condition(seen):
                    return seen
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still: {seen}") from None
