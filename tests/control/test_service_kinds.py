"""Kinds of clusters in one registry: OWT's, our own, OpenVidu's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from causeway.api.tokens import JWKS_PATH
from causeway.join_token import read_keys, verify
from control.cluster_settings import ProbeSettings
from control.registry.tables import placements
from tests.control.openvidu_stub import OpenViduStub
from tests.control.service import Service, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.control.service import Cluster

PROBE = ProbeSettings(period=0.2, timeout=1.0, failures_to_lost=2, lost_period=0.2, poll_interval=0.02)
PORTAL = {"host": "portal.test", "port": 8443, "secure": True}


@asynccontextmanager
async def openvidu(service: Service, name: str, *, region: str, **stub: Any) -> AsyncIterator[OpenViduStub]:
    async with OpenViduStub(**stub) as server:
        body = {
            "region": region,
            "driver": "openvidu",
            "rest_url": server.url,
            "service_id": server.service_id,
            "service_key": server.service_key,
            "instance": "d1",
            "incarnation": "i1",
        }
        answer = await service.operator.put(f"/v1/clusters/{name}", json=body)
        assert answer.status_code == 200, answer.text
        yield server


async def shown(service: Service, cluster: str) -> dict[str, Any]:
    view: dict[str, Any] = (await service.operator.get(f"/v1/clusters/{cluster}")).json()
    return view


async def ours(cluster: Cluster) -> None:
    await cluster.register(driver="causeway", portal=PORTAL)


async def test_joins_answer_tokens_of_every_kind_and_openvidu_is_not_cascaded(database_url: str) -> None:
    async with (
        running(database_url, probe=PROBE) as service,
        service.cluster("eu-1", region="eu") as owt,
        service.cluster("us-1", region="us", fingerprints=True) as own,
        openvidu(service, "ap-1", region="ap") as vidu,
    ):
        await owt.register()
        await ours(own)
        await service.create("standup")

        first = (await service.join("standup", region="ap")).json()
        assert (first["cluster"], first["ip"], first["port"], first["secure"]) == (
            "ap-1",
            "127.0.0.1",
            4443,
            True,
        )
        assert first["token"].startswith("wss://127.0.0.1:4443?")
        connection = next(iter(vidu.connections["standup"]))
        vidu.join("standup", connection, streams=1)

        # Whoever comes from elsewhere is sent there all the same: the conference stays within it.
        second = (await service.join("standup", region="eu", user="bob")).json()
        assert (second["cluster"], second["placed"]) == ("ap-1", "any")
        conference = await until(
            lambda: service.conference("standup"), lambda seen: len(seen["participants"]) == 1
        )
        assert [p["cluster"] for p in conference["placements"]] == ["ap-1"]
        assert conference["participants"][0]["user"] == "ada"
        assert conference["links"] == []

        # A conference that is elsewhere never comes to it, from its own region neither.
        await service.create("retro")
        assert (await service.join("retro", region="eu")).json()["cluster"] == "eu-1"
        third = await service.join("retro", region="ap", user="bob")
        assert third.json()["cluster"] != "ap-1"
        fourth = (await service.join("retro", region="us", user="eve")).json()
        assert fourth["cluster"] == "us-1"
        assert fourth["token"].count(".") == 2
        assert "retro" not in vidu.rooms
        assert not owt.stub.made("cascading")
        assert not [call for call in vidu.calls if "casc" in call.kind]


async def test_our_own_clusters_are_not_asked_for_tokens(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as own:
        await ours(own)
        await service.create("standup")
        answer = await service.join("standup", region="eu", role="viewer", user="Zoë")
        assert answer.status_code == 200, answer.text
        join = answer.json()
        assert (join["ip"], join["port"], join["secure"], join["room"]) == (
            "portal.test",
            8443,
            True,
            "standup",
        )
        keys = read_keys((await service.nobody.get(JWKS_PATH)).content)
        now = datetime.now(UTC)
        claims = verify(
            join["token"],
            keys,
            issuer="causeway",
            cluster="eu-1",
            incarnation="i1",
            now=now.timestamp(),
        )
        assert (claims.conference, claims.role, claims.user) == ("standup", "viewer", "Zoë")
        assert claims.exp - claims.iat == 300
        expires = datetime.fromisoformat(join["expires_at"])
        assert int(expires.timestamp()) == claims.exp
        asked = len(own.stub.calls)
        assert own.stub.made("create_room")[0].body["options"]["placementEpoch"] == claims.placement
        assert (await service.join("standup", region="eu")).status_code == 200
        assert len(own.stub.calls) == asked
        assert not own.stub.made("token")


async def test_a_new_life_of_a_conference_has_a_new_epoch(database_url: str) -> None:
    async with running(database_url) as service, service.cluster("eu-1", region="eu") as own:
        await ours(own)
        keys = read_keys((await service.nobody.get(JWKS_PATH)).content)

        async def joined(incarnation: str) -> int:
            await service.create("standup")
            join = (await service.join("standup", region="eu")).json()
            now = datetime.now(UTC).timestamp()
            claims = verify(
                join["token"], keys, issuer="causeway", cluster="eu-1", incarnation=incarnation, now=now
            )
            return claims.placement

        first = await joined("i1")
        assert await joined("i1") == first
        own.incarnation = "i2"  # it started anew: the placement stands, its rooms are gone
        await ours(own)
        assert await joined("i2") == first
        assert (await service.application.delete("/v1/conferences/standup")).status_code in {202, 204}

        async def gone() -> int:
            return (await service.application.get("/v1/conferences/standup")).status_code

        await until(gone, lambda status: status == 404)
        assert await joined("i2") > first


async def test_a_cluster_of_ours_must_say_where_its_portal_is(database_url: str) -> None:
    async with running(database_url, background=False) as service:
        body: dict[str, Any] = {
            "region": "eu",
            "driver": "causeway",
            "rest_url": "http://127.0.0.1:1",
            "service_id": "s",
            "service_key": "k",
            "instance": "d1",
            "incarnation": "i1",
        }
        answer = await service.enrolment.put("/v1/clusters/eu-1", json=body)
        assert answer.status_code == 422
        assert "portal" in answer.text
        bridges = body | {"driver": "openvidu", "event_bridge": {"host": "h", "port": 1}}
        answer = await service.enrolment.put("/v1/clusters/eu-1", json=bridges)
        assert answer.status_code == 422
        unknown = await service.enrolment.put("/v1/clusters/eu-1", json=body | {"driver": "jitsi"})
        assert unknown.status_code == 422


# --- OpenVidu ---------------------------------------------------------------------------------


async def test_openvidu_is_asked_how_it_is_and_who_is_there(database_url: str) -> None:
    async with (
        running(database_url, probe=PROBE) as service,
        openvidu(service, "ap-1", region="ap", pro=True) as vidu,
    ):
        await service.create("standup")
        assert (await service.join("standup", user="ada", role="viewer")).status_code == 200
        connection = next(iter(vidu.connections["standup"]))
        vidu.join("standup", connection, streams=2)
        vidu.media_nodes = {
            "media_1": {"id": "media_1", "status": "running", "connected": True, "load": 30.0},
            "media_2": {"id": "media_2", "status": "running", "connected": True, "load": 50.0},
        }
        view = await until(lambda: shown(service, "ap-1"), lambda view: view["load"].get("streams") == 2)
        assert (view["state"], view["probed"], view["driver"]) == ("online", True, "openvidu")
        assert view["load"]["participants"] == 1
        assert abs(view["load"]["cpu"] - 0.4) < 1e-9
        conference = await until(
            lambda: service.conference("standup"), lambda seen: len(seen["participants"]) == 1
        )
        assert conference["participants"][0] | {"joined_at": None} == {
            "cluster": "ap-1",
            "id": connection,
            "user": "ada",
            "role": "viewer",
            "joined_at": None,
        }

        # The last one leaves: OpenVidu ends the session, and the next client gets a new one.
        del vidu.rooms["standup"], vidu.connections["standup"]
        await until(lambda: service.conference("standup"), lambda seen: not seen["participants"])
        again = await service.join("standup", user="bob")
        assert again.status_code == 200, again.text
        assert "standup" in vidu.rooms


async def test_an_openvidu_that_answers_no_more_is_lost(database_url: str) -> None:
    async with running(database_url, probe=PROBE) as service:
        async with openvidu(service, "ap-1", region="ap"):
            await until(lambda: shown(service, "ap-1"), lambda view: view["last_seen_at"] is not None)
        view = await until(lambda: shown(service, "ap-1"), lambda view: view["state"] == "lost")
        assert "cluster-unreachable" in view["state_reason"]
        await service.create("standup")
        assert (await service.join("standup")).status_code == 503


async def test_ids_and_roles_that_openvidu_cannot_take_go_elsewhere_or_are_said(database_url: str) -> None:
    async with (
        running(database_url, probe=PROBE) as service,
        openvidu(service, "ap-1", region="ap") as vidu,
    ):
        await service.create("team.standup")
        refused = await service.join("team.standup", region="ap")
        assert refused.status_code == 503
        async with service.cluster("eu-1", region="eu") as owt:
            await owt.register()
            assert (await service.join("team.standup", region="ap")).json()["cluster"] == "eu-1"
        assert vidu.rooms == {}


async def test_templates_reach_sessions_as_far_as_they_have_options(database_url: str) -> None:
    async with (
        running(database_url, probe=PROBE) as service,
        openvidu(service, "ap-1", region="ap") as vidu,
    ):
        body = {"video_codecs": ["av1", "h264", "vp8"], "sfu_only": True}
        saved = await service.operator.put("/v1/templates/webinar", json=body)
        assert saved.status_code in {200, 201}, saved.text
        created = await service.application.post("/v1/conferences", json={"id": "talk", "type": "webinar"})
        assert created.status_code == 201, created.text
        assert (await service.join("talk")).status_code == 200
        sent = vidu.made("create_room")[0].body
        assert (sent["forcedVideoCodec"], sent["allowTranscoding"]) == ("H264", False)
        async with service.engine.connect() as connection:
            assert (await connection.scalars(select(placements.c.state))).all() == ["ready"]
