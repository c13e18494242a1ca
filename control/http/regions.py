"""Route for clients' applications: the regions, and what to measure the way to them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causeway.api import Location, RegionList, RegionView
from control.http.edge import json
from control.http.entry import APPLICATIONS, Entry
from control.placement_settings import RegionSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from control.placing import Placing
    from control.registry.roster import Choice

__all__ = ["RegionRoutes"]


class RegionRoutes:
    """Handlers under /v1/regions."""

    def __init__(self, placing: Placing, regions: Mapping[str, RegionSettings]) -> None:
        self._placing = placing
        self._regions = regions

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/v1/regions",
                APPLICATIONS,
                self.index,
                scope="join",
                tag="joining",
                summary="List the regions with what clients can measure their latency to them with.",
                answers={200: RegionList},
            )
        ]

    async def index(self, _request: Request) -> Response:
        """GET /v1/regions."""
        clusters = await self._placing.clusters()
        names = sorted({*self._regions, *(choice.region for choice in clusters)})
        return json(
            RegionList(
                regions=[
                    _view(
                        name,
                        self._regions.get(name, RegionSettings()),
                        [choice for choice in clusters if choice.region == name],
                    )
                    for name in names
                ]
            )
        )


def _view(name: str, known: RegionSettings, clusters: list[Choice]) -> RegionView:
    usable = [c for c in clusters if c.liveness != "gone" and not c.draining and not c.blocked]
    located = next((c.location for c in clusters if c.location is not None), None)
    location = known.location
    if location is None and located is not None:
        location = Location(lat=located[0], lon=located[1])
    pings = [*known.ping_urls, *(c.ping_url for c in usable if c.ping_url is not None)]
    return RegionView(
        name=name,
        groups=list(known.groups),
        location=location,
        ping_urls=list(dict.fromkeys(pings)),
        clusters=len(usable),
    )
