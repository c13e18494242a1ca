"""Two replicas on one database, with announcements suppressed: whatever one of them changes, the other sees.

What replicas remember is listed in docs/architecture.md. Nothing here is announced to the second replica:
everything has to be found by version checks and polling.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from causeway.join_token import kid_of
from control import app
from control.cascade_settings import CascadeSettings
from control.token_settings import TokenSettings
from tests.control.service import Service, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest


@asynccontextmanager
async def two(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Service, Service]]:
    async def deaf(_connect: Any, channels: Any, *, on_gap: Callable[[], None]) -> None:
        """Hear nothing, for ever."""
        del channels
        on_gap()
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "follow", deaf)
    settings: dict[str, Any] = {
        # Long enough that no clock heals what announcements and versions should.
        "tokens": TokenSettings(lead=1, refresh_interval=600),
        "cascade": CascadeSettings(idle_grace=600),
        "master_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    }
    async with running(url, **settings) as one, running(url, **settings) as other:
        yield one, other


async def test_a_revoked_key_is_refused_by_every_replica(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(database_url, monkeypatch) as (one, other):
        made = (await one.operator.post("/v1/keys", json={"kind": "application", "name": "x"})).json()
        headers = {"Authorization": f"Bearer {made['key']}"}

        async def asked() -> int:
            return (await other.nobody.get("/v1/conferences", headers=headers)).status_code

        assert await asked() == 200
        # As after a visit: it would be remembered for a while.
        assert (await one.operator.delete(f"/v1/keys/{made['id']}")).status_code == 204
        await until(asked, lambda status: status == 401, timeout=4)


async def test_a_new_signing_key_is_published_and_used_by_every_replica(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(database_url, monkeypatch) as (one, other), one.cluster("eu-1", region="eu") as eu:
        await eu.register(driver="causeway", portal={"host": "127.0.0.1", "port": 8000, "secure": False})
        await one.create("standup")

        async def published() -> set[str]:
            keys = (await other.nobody.get("/.well-known/jwks.json")).json()["keys"]
            return {key["kid"] for key in keys}

        async def signed() -> str:
            # Only one of them is told of each change; the join at the other finds the room by looking.
            answer = await _join(other, "standup")
            return kid_of(answer["token"]) or ""

        first = await signed()
        assert (await one.operator.post("/v1/signing-keys")).status_code == 201
        await until(published, lambda kids: len(kids) == 2)
        await until(signed, lambda kid: kid != first)


async def _join(service: Service, conference: str) -> dict[str, Any]:
    answer = await service.application.post(f"/v1/conferences/{conference}/join", json={"user": "ada"})
    assert answer.status_code == 200, answer.text
    joined: dict[str, Any] = answer.json()
    return joined


async def test_a_new_cluster_and_a_blocked_one_are_known_to_every_replica(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(database_url, monkeypatch) as (one, other), one.cluster("eu-1", region="eu") as eu:
        portal = {"host": "127.0.0.1", "port": 8000, "secure": False}
        await eu.register(driver="causeway", portal=portal)
        await one.create("standup")
        assert (await _join(other, "standup"))["cluster"] == "eu-1"
        async with one.cluster("us-1", region="us") as us:
            await us.register(driver="causeway", portal=portal)
            blocked = await one.operator.put("/v1/clusters/eu-1/block", json={"reason": "a test"})
            assert blocked.status_code == 200
            assert (await _join(other, "standup"))["cluster"] == "us-1"


async def test_a_new_version_of_a_template_is_what_every_replica_uses(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(database_url, monkeypatch) as (one, other):
        before = (await other.operator.get("/v1/templates/default")).json()
        await other.create("old")
        changed = before["template"] | {"participant_limit": 3}
        assert (await one.operator.put("/v1/templates/default", json=changed)).status_code == 200
        await other.create("new")
        assert (await other.conference("old"))["participant_limit"] != 3
        assert (await other.conference("new"))["participant_limit"] == 3


async def test_work_that_one_replica_marks_is_done_whoever_was_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        two(database_url, monkeypatch) as (one, other),
        one.cluster("eu-1", region="eu") as eu,
        one.cluster("us-1", region="us") as us,
    ):
        await eu.register()
        await us.register()
        await one.create("standup")
        for cluster in (eu, us):
            await one.join("standup", region=cluster.region)
            await cluster.enter("standup", f"p-{cluster.id}")

        async def linked() -> list[Any]:
            links: list[Any] = (await other.conference("standup"))["links"]
            return links

        await until(linked, lambda links: [link["state"] for link in links] == ["requested"])
