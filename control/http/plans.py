"""The plan of a conference: what is about to be done about it, and what waits for what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from causeway.api import PlanView
from control.cascade.explain import explain
from control.cascade.plan import takes_long, topology_of
from control.cascade.reconcile import with_breakers
from control.errors import ConferenceUnknownError
from control.http.edge import json, part
from control.http.entry import APPLICATIONS, Entry
from control.registry import cascade_view, figures, work

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.cascade.breaker import Breakers
    from control.registry.store import Store

__all__ = ["PlanRoutes"]


class PlanRoutes:
    """One handler under /v1/conferences. It plans anew, as the reconciler would, and does nothing."""

    def __init__(self, store: Store, breakers: Breakers, *, idle_grace: float) -> None:
        self._store = store
        self._breakers = breakers
        self._idle_grace = idle_grace

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/v1/conferences/{conference}/plan",
                APPLICATIONS,
                self.show,
                scope="conferences:read",
                tag="conferences",
                summary="Show what is about to be done about a conference, and what waits for what.",
                answers={200: PlanView},
                problems=("conference-unknown",),
            ),
        ]

    async def show(self, request: Request) -> Response:
        """GET /v1/conferences/{conference}/plan."""
        conference = part(request, "conference")
        next_look_at = await self._store.read(work.due_at, conference)
        snapshot = await self._store.read(cascade_view.load, conference, idle_grace=self._idle_grace)
        if snapshot is None:
            raise ConferenceUnknownError(f"no conference {conference}")
        seen = {cluster: self._breakers.view(cluster) for cluster in snapshot.starts}
        view = with_breakers(snapshot, self._breakers).view
        if takes_long(view):
            await asyncio.to_thread(topology_of, view, snapshot.now)
        return json(
            explain(
                view,
                snapshot.now,
                breakers={cluster: breaker for cluster, breaker in seen.items() if breaker is not None},
                next_look_at=next_look_at,
                ends=await self._store.read(figures.of_conference, conference),
            )
        )
