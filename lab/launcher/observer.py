"""Watches control and the clusters through their HTTP APIs, so that others can wait for what they see.

Another process's state can only be asked for again and again; this is the one place that does so. What cannot
be reached keeps its last known state and is marked as not reached. It must not know who waits for what.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from causeway.errors import ApiError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from causeway.api import ClusterView, ConferenceView
    from causeway.client import ControlClient
    from lab.launcher.processes import Region

__all__ = ["Observation", "Observer"]

MAX_STATS_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What was seen last."""

    ready: bool = False
    """Whether control says that it is ready."""
    clusters: Mapping[str, ClusterView] = field(default_factory=dict)
    """As control sees them, by id."""
    conference: ConferenceView | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    """What each cluster answered to `/lab/stats`, by region; without those that did not answer."""
    at: float = 0.0
    """When, in seconds of CLOCK_MONOTONIC."""


class Observer:
    """`run` looks again and again; `seen` is the latest; `until` waits for a condition on it."""

    def __init__(
        self,
        client: ControlClient,
        control_url: str,
        regions: Sequence[Region],
        *,
        interval: float = 0.2,
        timeout: float = 2.0,
    ) -> None:
        """`interval`: seconds between two looks; `timeout`: seconds that one answer may take."""
        self._client = client
        self._control_url = control_url
        self._regions = regions
        self._interval = interval
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._looked = asyncio.Condition()
        self.seen = Observation()
        self.conference: str | None = None
        """Which conference to look at."""

    async def run(self) -> None:
        """Look until cancelled."""
        async with aiohttp.ClientSession(timeout=self._timeout) as http:
            while True:
                await self._look(http)
                await asyncio.sleep(self._interval)

    async def until(self, condition: Callable[[Observation], bool]) -> None:
        """Return when something seen after this call fulfils the condition."""
        async with self._looked:
            began = time.monotonic()
            await self._looked.wait_for(lambda: self.seen.at >= began and condition(self.seen))

    async def _look(self, http: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        ready, clusters, conference, *answers = await asyncio.gather(
            self._ready(http),
            self._clusters(),
            self._conference(),
            *(self._stats(http, region) for region in self._regions),
        )
        stats = zip((region.name for region in self._regions), answers, strict=True)
        async with self._looked:
            self.seen = Observation(
                ready=ready,
                clusters=clusters,
                conference=conference,
                stats={name: answer for name, answer in stats if answer is not None},
                at=began,
            )
            self._looked.notify_all()

    async def _ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"{self._control_url}/readyz") as answer:
                return answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _clusters(self) -> Mapping[str, ClusterView]:
        try:
            clusters = await self._client.list_clusters()
        except (ApiError, UnavailableError):
            return self.seen.clusters
        return {cluster.id: cluster for cluster in clusters}

    async def _conference(self) -> ConferenceView | None:
        if self.conference is None:
            return None
        try:
            return await self._client.get_conference(self.conference)
        except (ApiError, UnavailableError):
            return self.seen.conference

    async def _stats(self, http: aiohttp.ClientSession, region: Region) -> Any:
        headers = {"Authorization": f"Bearer {region.node_secret}"}
        try:
            async with http.get(f"{region.url}/lab/stats", headers=headers) as answer:
                if answer.status != HTTPStatus.OK:
                    return None
                if (answer.content_length or 0) > MAX_STATS_BYTES:
                    return None
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None
