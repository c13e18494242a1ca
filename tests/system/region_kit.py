"""A cluster that is its own witness: what really is in it, told to whichever replica of control answers.

The management API is a real HTTP server (tests.control.owt_stub); what it is asked to do, it does to `people`
and `links`, and whatever is true is reported until some replica has taken it, as clusters do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from base64 import urlsafe_b64decode
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx2
from aiohttp import web

from causeway.api import EPOCH_HEADER, REPORT_HEADER
from tests.control.owt_stub import OwtStub

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

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
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str,
        epoch: int | None = None,
        numbers: Iterator[int] | None = None,
    ) -> httpx2.Response:
        """Return the first answer that is no trouble of the replica's own; `numbers`: one for each try."""
        headers = {"Authorization": f"Bearer {self._keys[key]}"}
        if epoch is not None:
            headers[EPOCH_HEADER] = str(epoch)
        while True:
            urls = self._urls()
            if numbers is not None:
                headers[REPORT_HEADER] = str(next(numbers))
            if urls:
                url = self._rng.choice(urls)
                with suppress(*_LOST):
                    answer = await self._client.request(method, url + path, json=body, headers=headers)
                    if answer.status_code < 500 and not _is_superseded(answer):
                        return answer
            await asyncio.sleep(0.05)  # as any client waits before it tries again


def _is_superseded(answer: httpx2.Response) -> bool:
    """Say whether something newer was carried out: then it is to be told again, with a new number."""
    return answer.status_code == 409 and answer.json()["type"].endswith("report-superseded")


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
        self._numbers = itertools.count(1)
        self._saying = ""
        self._told: dict[str, Any] = {}
        """What this epoch was told, by path."""
        self._changed_truth = asyncio.Event()
        self._ended_links: set[tuple[str, str]] = set()
        self._room_tokens: dict[str, str] = {}
        """Of rooms that have come to life."""
        self._missing: dict[str, int] = {}
        """Placements whose rooms clients had tokens for, and which are not here."""

    # --- what happens in it -------------------------------------------------------------------

    def enter(self, room: str, participant: str, user: str, token: str) -> bool:
        """Let a client in; False if the room that the signed token is for is not there."""
        placement = _placement_of(token)
        there = self.rooms.get(room, {}).get("placementEpoch", 0)
        if there != placement:
            if there < placement:
                self._missing[room] = placement
                self._changed_truth.set()
            return False
        self._room_tokens.setdefault(room, f"token {secrets.token_hex(4)} of {room} in {self.name}")
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
        room = request.match_info.get("room", "")
        asked = int(request.query.get("placementEpoch", 2**53))
        if route.kind == "delete_room" and self.rooms.get(room, {}).get("placementEpoch", 0) > asked:
            route = replace(route, handler=lambda _room, _body: web.Response(status=404))
        answer = await super()._answer(route, request)
        if answer.status != 200:
            return answer
        match route.kind:
            case "cascading":
                target = (await request.json())["options"]["targetCluster"]
                if room in self.rooms and room in self._world[target].rooms:
                    self._begin_link(room, target)
            case "stop_cascading":
                self.end_link(room, request.match_info["peer"])
            case "delete_room":
                self._close(room)
        if route.kind in {"create_room", "cascading", "delete_room"}:
            self.interrupt()
        return answer

    def _create_room(self, room: str, body: Any) -> web.Response:
        options = body["options"]
        known = self.rooms.get(options["_id"])
        if known is not None and known["placementEpoch"] > options["placementEpoch"]:
            return web.json_response({}, status=409)
        if known is not None and known["placementEpoch"] < options["placementEpoch"]:
            self._close(options["_id"])
            del self.rooms[options["_id"]]
        return super()._create_room(room, body)

    def _close(self, room: str) -> None:
        for there, peer in tuple(self.links):
            if there == room:
                self.end_link(room, peer)
        self.people.pop(room, None)
        self._room_tokens.pop(room, None)
        self._changed_truth.set()

    # --- what it says -------------------------------------------------------------------------

    async def run(self) -> None:
        """Register, beat, and tell what is true."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._tell())

    def said_of(self, room: str) -> str:
        """Return what control was told last of the room, for whoever wonders."""
        told = sorted(path for path in self._told if path.startswith(f"/rooms/{room}"))
        return f"epoch {self._epoch}, {self._saying}, {told}"

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
        answer = await self._replicas.ask(
            "PUT", f"/v1/clusters/{self.name}", body, key="enrolment", numbers=self._numbers
        )
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
        for room, placement in tuple(self._missing.items()):
            del self._missing[room]
            if not await self._say("POST", f"/rooms/{room}/missing", {"placement": placement}, (204,)):
                return False
        told, truth = self._told, self._truth()  # another registration begins with nothing told
        for path in sorted(told.keys() - truth.keys(), reverse=True):
            gone = "/links/" not in path
            if gone and not await self._say("DELETE", path, None, (204, 404)):
                return False
            told.pop(path, None)
        for path, body in truth.items():
            if told.get(path) != body:
                if not await self._say("PUT", path, body, (204, 404)):
                    return False
                told[path] = body
        return True

    def _truth(self) -> dict[str, Any]:
        """Return what is to be reported, by path."""
        truth: dict[str, Any] = {}
        for room, token in self._room_tokens.items():
            truth[f"/rooms/{room}"] = {"token": token}
        for room, people in self.people.items():
            for participant, user in people.items():
                truth[f"/rooms/{room}/participants/{participant}"] = {"user": user, "role": "presenter"}
        for state, links in (("down", self._ended_links), ("up", self.links)):
            truth |= {f"/rooms/{room}/links/{peer}": {"state": state} for room, peer in links}
        return truth

    async def _say(self, method: str, path: str, body: Any, good: tuple[int, ...]) -> bool:
        self._saying = f"{method} {path} since {asyncio.get_running_loop().time():.0f}"
        answer = await self._replicas.ask(
            method,
            f"/v1/clusters/{self.name}{path}",
            body,
            key="enrolment",
            epoch=self._epoch,
            numbers=self._numbers,
        )
        if answer.status_code in {404, 409} and answer.json()["type"].rpartition("/")[2] in {
            "cluster-unknown",
            "stale-epoch",
        }:
            return False
        assert answer.status_code in good, (method, path, answer.text)
        return True


def _placement_of(token: str) -> int:
    """Return which placement a signed token is for; who trusts it is not the question here."""
    claims = token.split(".")[1]
    return int(json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["placement"])
