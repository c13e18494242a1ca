"""A cluster that is its own witness: what really is in it, told to whichever replica of control answers.

The management API is a real HTTP server (tests.control.owt_stub); what it is asked to do, it does to `people`
and `links`, and whatever is true is reported until some replica has taken it, as clusters do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx2

from causeway.api import EPOCH_HEADER
from tests.control.owt_stub import OwtStub

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from aiohttp import web

__all__ = ["Replicas", "WitnessCluster"]

_LOST: Final = (httpx2.TransportError, httpx2.InvalidURL)


class Replicas:
    """Asks any replica that answers. `urls()` gives those that should be there."""

    def __init__(self, urls: Callable[[], list[str]], keys: Mapping[str, str], rng: random.Random) -> None:
        self._urls = urls
        self._keys = keys
        self._rng = rng
        self._client = httpx2.AsyncClient(timeout=3)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str, epoch: int | None = None
    ) -> httpx2.Response:
        """Return the first answer that is no trouble of the replica's own."""
        headers = {"Authorization": f"Bearer {self._keys[key]}"}
        if epoch is not None:
            headers[EPOCH_HEADER] = str(epoch)
        while True:
            urls = self._urls()
            if urls:
                url = self._rng.choice(urls)
                with suppress(*_LOST):
                    answer = await self._client.request(method, url + path, json=body, headers=headers)
                    if answer.status_code < 500:
                        return answer
            await asyncio.sleep(0.05)  # as any client waits before it tries again


class WitnessCluster(OwtStub):
    """One cluster. `run` must be running beside it. `interrupt()` is called in the middle of every action."""

    def __init__(
        self, name: str, region: str, replicas: Replicas, world: dict[str, WitnessCluster], **stub: Any
    ) -> None:
        super().__init__(**stub)
        self.name = name
        self.region = region
        self.people: dict[str, dict[str, str]] = {}
        """{room: {participant: user}}"""
        self.links: set[tuple[str, str]] = set()
        """(room, other cluster), whoever dialed."""
        self.interrupt: Callable[[], None] = lambda: None
        self._replicas = replicas
        self._world = world
        world[name] = self
        self._epoch = 0
        self._told: dict[str, Any] = {}
        """What this epoch was told, by path."""
        self._changed_truth = asyncio.Event()
        self._ended_links: set[tuple[str, str]] = set()

    # --- what happens in it -------------------------------------------------------------------

    def enter(self, room: str, participant: str, user: str) -> bool:
        """Let a client in; False if the room is not there."""
        if room not in self.rooms:
            return False
        self.people.setdefault(room, {})[participant] = user
        self._changed_truth.set()
        return True

    def leave(self, room: str, participant: str) -> None:
        self.people.get(room, {}).pop(participant, None)
        self._changed_truth.set()

    def end_link(self, room: str, peer: str) -> None:
        """Both ends see that it is over."""
        for here, there in ((self, peer), (self._world[peer], self.name)):
            if (room, there) in here.links:
                here.links.discard((room, there))
                here._ended_links.add((room, there))
                here._changed_truth.set()

    def _begin_link(self, room: str, peer: str) -> None:
        for here, there in ((self, peer), (self._world[peer], self.name)):
            here.links.add((room, there))
            here._ended_links.discard((room, there))
            here._told.pop(f"/rooms/{room}/links/{there}", None)
            here._changed_truth.set()

    async def _answer(self, route: Any, request: web.Request) -> web.StreamResponse:
        if route.kind in {"create_room", "delete_room", "bridges", "cascading", "stop_cascading"}:
            self.interrupt()
        answer = await super()._answer(route, request)
        if answer.status != 200:
            return answer
        room = request.match_info.get("room", "")
        match route.kind:
            case "cascading":
                target = (await request.json())["options"]["targetCluster"]
                if room in self.rooms and room in self._world[target].rooms:
                    self._begin_link(room, target)
            case "stop_cascading":
                self.end_link(room, request.match_info["peer"])
            case "delete_room":
                for there, peer in tuple(self.links):
                    if there == room:
                        self.end_link(room, peer)
                self.people.pop(room, None)
                self._changed_truth.set()
        if route.kind in {"create_room", "cascading", "delete_room"}:
            self.interrupt()
        return answer

    # --- what it says -------------------------------------------------------------------------

    async def run(self) -> None:
        """Register, beat, and tell what is true."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._tell())

    async def register(self) -> None:
        body = {
            "region": self.region,
            "driver": "causeway",
            "rest_url": self.url,
            "service_id": self.service_id,
            "service_key": self.service_key,
            "instance": f"deployment-of-{self.name}",
            "incarnation": "one",
            "event_bridge": {"host": "127.0.0.1", "port": 7700},
            "portal": {"host": "127.0.0.1", "port": 8000, "secure": False},
        }
        answer = await self._replicas.ask("PUT", f"/v1/clusters/{self.name}", body, key="enrolment")
        assert answer.status_code == 200, answer.text
        if answer.json()["epoch"] != self._epoch:
            self._epoch, self._told = answer.json()["epoch"], {}
        self._changed_truth.set()

    async def _beat(self) -> None:
        while True:
            if not await self._say(
                "POST", "/heartbeat", {"load": {"participants": len(self.people)}}, (200,)
            ):
                await self.register()
            await asyncio.sleep(1.0)

    async def _tell(self) -> None:
        while True:
            self._changed_truth.clear()
            if await self._tell_all():
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._changed_truth.wait()
            else:
                await self.register()

    async def _tell_all(self) -> bool:
        """Tell what was not told yet; False when the lease is over."""
        truth = self._truth()
        for path in sorted(self._told.keys() - truth.keys()):
            gone = "/participants/" in path
            if gone and not await self._say("DELETE", path, None, (204, 404)):
                return False
            self._told.pop(path, None)
        for path, body in truth.items():
            if self._told.get(path) != body:
                if not await self._say("PUT", path, body, (204, 404)):
                    return False
                self._told[path] = body
        return True

    def _truth(self) -> dict[str, Any]:
        """Return what is to be reported, by path."""
        truth: dict[str, Any] = {}
        for room, people in self.people.items():
            if room in self.rooms and people:
                truth[f"/rooms/{room}"] = {"token": f"token of {room} in {self.name}"}
            for participant, user in people.items():
                truth[f"/rooms/{room}/participants/{participant}"] = {"user": user, "role": "presenter"}
        for state, links in (("down", self._ended_links), ("up", self.links)):
            truth |= {f"/rooms/{room}/links/{peer}": {"state": state} for room, peer in links}
        return truth

    async def _say(self, method: str, path: str, body: Any, good: tuple[int, ...]) -> bool:
        answer = await self._replicas.ask(
            method, f"/v1/clusters/{self.name}{path}", body, key="enrolment", epoch=self._epoch
        )
        if answer.status_code in {404, 409} and answer.json()["type"].rpartition("/")[2] in {
            "cluster-unknown",
            "stale-epoch",
        }:
            return False
        assert answer.status_code in good, (method, path, answer.text)
        return True
