"""A laboratory cluster and the central service, over real sockets in one loop: tokens of one at the other."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from causeway.join_token import kid_of
from control.http.server import address_of, bind, make_server
from control.settings import HttpSettings
from control.token_settings import TokenSettings
from lab.portal_client import Joined, PortalClient, PortalRefusedError
from lab.settings import KeySettings
from tests.control.service import Service, running, until
from tests.lab.cluster_kit import lab_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lab.cluster import Cluster

TOKENS = TokenSettings(lead=1, refresh_interval=0.1)


class Network:
    """The service behind a port, which can be closed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._listener = bind("127.0.0.1", 0)
        host, port = address_of(self._listener)
        self.url = f"http://{host}:{port}"
        self._server = make_server(service.control.app, HttpSettings(), stop_timeout=1)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def away(self) -> None:
        self._server.should_exit = True
        await self._serving
        self._listener.close()


@asynccontextmanager
async def reachable(database_url: str) -> AsyncIterator[Network]:
    async with running(database_url, tokens=TOKENS) as service:
        network = Network(service)
        try:
            yield network
        finally:
            await network.away()


@asynccontextmanager
async def cluster(network: Network, **changes: Any) -> AsyncIterator[Cluster]:
    settings: dict[str, Any] = {
        "cluster": "eu-1",
        "region": "eu",
        "control_url": network.url,
        "enrolment_key": network.service.keys["enrolment"],
        "keys": KeySettings(min_interval=0.1),
    }
    async with lab_cluster(**(settings | changes)) as started:

        async def registered() -> bool:
            return started.registrar is not None and started.registrar.lease is not None

        await until(registered, bool)
        yield started


async def token_for(network: Network, conference: str = "standup", **request: Any) -> dict[str, Any]:
    await network.service.create(conference)
    answer = await network.service.join(conference, **request)
    assert answer.status_code == 200, answer.text
    join: dict[str, Any] = answer.json()
    return join


async def enter(join: dict[str, Any]) -> tuple[PortalClient, Joined]:
    portal = await PortalClient.connect(f"ws://{join['ip']}:{join['port']}/portal")
    try:
        return portal, await portal.join(join["token"])
    except BaseException:
        await portal.close()
        raise


async def refused(join: dict[str, Any]) -> str:
    with pytest.raises(PortalRefusedError) as told:
        await enter(join)
    return str(told.value)


async def test_a_signed_token_opens_the_portal_once_and_control_sees_who_came(database_url: str) -> None:
    async with reachable(database_url) as network, cluster(network) as lab:
        join = await token_for(network, user="ada", role="viewer")
        assert join["token"].count(".") == 2
        portal, joined = await enter(join)
        async with portal:
            conference = await until(
                lambda: network.service.conference("standup"), lambda seen: len(seen["participants"]) == 1
            )
            (seen,) = conference["participants"]
            assert (seen["id"], seen["user"], seen["role"]) == (joined.participant, "ada", "viewer")
            assert "shown before" in await refused(join)
            assert lab.rooms.records[0].options.placement_epoch is not None


async def test_tokens_end_with_the_life_of_the_conference_and_of_the_cluster(database_url: str) -> None:
    async with reachable(database_url) as network:
        async with cluster(network):
            old = await token_for(network)
            deleted = await network.service.application.delete("/v1/conferences/standup")
            assert deleted.status_code in {202, 204}

            async def gone() -> int:
                return (await network.service.application.get("/v1/conferences/standup")).status_code

            await until(gone, lambda status: status == 404)
            fresh = await token_for(network)
            assert "another life" in await refused(old)
            portal, _ = await enter(fresh)
            await portal.close()
            unused = await token_for(network)
        async with cluster(network) as again:
            unused |= {"port": again.port}
            await token_for(network)  # the room is there again
            assert "earlier start" in await refused(unused)


async def test_a_new_key_is_learnt_and_control_may_be_away(database_url: str) -> None:
    async with reachable(database_url) as network, cluster(network) as lab:
        first = await token_for(network)
        old = kid_of(first["token"])
        assert (await network.service.operator.post("/v1/signing-keys")).status_code == 201

        async def rotated() -> dict[str, Any]:
            return await token_for(network)

        later = await until(rotated, lambda join: kid_of(join["token"]) != old)
        assert lab.keys is not None
        portal, _ = await enter(later)
        await portal.close()
        assert {old, kid_of(later["token"])} <= set(lab.keys.keys)
        last = await token_for(network)
        await network.away()
        for join in (first, last):
            portal, _ = await enter(join)
            await portal.close()


async def test_a_cluster_may_be_asked_for_its_tokens_instead(database_url: str) -> None:
    async with reachable(database_url) as network, cluster(network, driver="owt") as lab:
        join = await token_for(network)
        assert "." not in join["token"]
        assert lab.keys is None
        portal, joined = await enter(join)
        async with portal:
            assert joined.room == "standup"
            signed = join["token"] + ".a.b"
            assert "not valid" in await refused(join | {"token": signed})
