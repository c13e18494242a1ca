"""One cluster of a benchmark as a process: its event bridge, and nodes that send events to and fro."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench._bridges.site import Nodes, Site
from bridges.event.settings import EventSettings
from bridges.quic import QuicSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["EVENT_BYTES", "Post", "event"]

Event = dict[str, Any]

_PADDING: Final = "x" * 200
_OPENING: Final = 100
"""Conferences that may be being opened at once."""
_SIZE: Final = 100
"""Events of a flood for one that is sent back."""
_AHEAD: Final = 5
"""Events of a flood that may be on their way, in hundreds."""


def event(number: int, *, back: bool) -> Event:
    """Return an event that changes nothing; `back`: the node that hears it sends another one back."""
    target = {"number": number, "back": back, "padding": _PADDING}
    return {"type": "onAudioActiveness", "data": {"activeInputStream": "stream", "target": target}}


EVENT_BYTES: Final = 300
"""About what it takes on a wire."""


class Post:
    """The process. Rooms are `room-0`, `room-1` …."""

    def __init__(self) -> None:
        self.site: Site | None = None
        self._initialized: set[str] = set()
        self._returned: list[float] = []
        self._sent: list[float] = []
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(cls, cluster: str, protocol: str) -> AsyncIterator[Post]:
        """Run the bridge until the end."""
        post = cls()
        nodes = Nodes(cluster, state=_state, told=post.told)
        quic = QuicSettings(alpn=(protocol,), max_connections=1024)
        async with Site.running(cluster, nodes, quic=quic, event=EventSettings()) as site:
            post.site = site
            yield post

    def told(self, room: str, origin: str, event_: Event) -> None:
        """Take what the other cluster's node says."""
        del origin
        assert self.site is not None
        if event_["type"] == "initialize":
            self._initialized.add(room)
            self._changed.set()
        elif event_["type"] == "onAudioActiveness":
            target = event_["data"]["target"]
            if target["back"]:
                self.site.nodes.spawn(self.site.nodes.notify(room, event(target["number"], back=False)))
            elif target["number"] < len(self._sent):
                self._returned.append(time.monotonic() - self._sent[target["number"]])
                self._changed.set()

    async def handle(self, method: str, args: list[Any]) -> Any:
        """Serve one call; see bench/events.py."""
        assert self.site is not None
        answer: Any = None
        match method, args:
            case "address", []:
                answer = self.site.address
            case "rooms", [begin, end]:
                self.site.nodes.rooms.update(f"room-{number}" for number in range(begin, end))
            case "cascade", [begin, end, address]:
                await self._cascade(begin, end, address)
            case "initialized", [count]:
                await self._until(lambda: len(self._initialized) >= count)
            case "round_trips", [count, rate, rooms]:
                answer = await self._round_trips(count, rate, rooms)
            case "flood", [seconds, rooms]:
                answer = await self._flood(seconds, rooms)
            case "memory", []:
                answer = _resident_bytes()
            case _:
                raise ValueError(method)
        return answer

    async def _cascade(self, begin: int, end: int, address: Any) -> None:
        """Have the bridge dial for each of these rooms, some at a time."""
        assert self.site is not None
        for number in range(begin, end):
            await self.site.cascade(f"room-{number}", address)
            await asyncio.sleep(0)
            await self._until(lambda number=number: len(self._initialized) > number - _OPENING)

    async def _round_trips(self, count: int, rate: float, rooms: int) -> list[float]:
        """Send events that are sent back, spread over the rooms; return the seconds of each."""
        self._begin()
        begin = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            await self._send(number, rooms, back=True)
        await self._come_back(count)
        return self._returned

    async def _flood(self, seconds: float, rooms: int) -> float:
        """Send as many events as go; return how many a second the other cluster's nodes heard."""
        assert self.site is not None
        self._begin()
        begin = time.monotonic()
        hundreds = 0
        while time.monotonic() < begin + seconds:
            for number in range(_SIZE):
                room = f"room-{(hundreds * _SIZE + number) % rooms}"
                await self.site.nodes.notify(room, event(1 << 30, back=False))
            await self._send(hundreds, rooms, back=True)
            hundreds += 1
            await asyncio.sleep(0)
            await self._come_back(hundreds - _AHEAD + 1)
        await self._come_back(hundreds)
        return hundreds * (_SIZE + 1) / (time.monotonic() - begin)

    async def _send(self, number: int, rooms: int, *, back: bool) -> None:
        assert self.site is not None
        self._sent.append(time.monotonic())
        await self.site.nodes.notify(f"room-{number % rooms}", event(number, back=back))

    async def _come_back(self, count: int) -> None:
        """Wait until so many events have come back."""
        await self._until(lambda: len(self._returned) >= count)

    def _begin(self) -> None:
        self._sent, self._returned = [], []

    async def _until(self, condition: Any) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _state(room: str) -> Event:
    """Return a conference of one participant with one stream."""
    tracks = [{"id": f"{kind}-{room}", "type": kind, "status": "active"} for kind in ("audio", "video")]
    stream = {
        "id": f"s-{room}",
        "type": "forward",
        "media": {"tracks": tracks},
        "info": {"owner": f"p-{room}", "type": "webrtc", "inViews": [], "attributes": {}},
    }
    participant = {"id": f"p-{room}", "user": "ada", "role": "presenter"}
    data = {"participants": {participant["id"]: participant}, "streams": {stream["id"]: stream}}
    return {"type": "initialize", "data": data}


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
