"""Route for operators: the processes of control, and which of them does what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causeway.api.replicas import ReplicaList
from control.http.edge import json
from control.http.entry import OPERATORS, Entry
from control.registry import replicas

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.registry.store import Store

__all__ = ["ReplicaRoutes"]


class ReplicaRoutes:
    """Handlers under /v1/replicas."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        return [
            Entry(
                "GET",
                "/v1/replicas",
                OPERATORS,
                self.index,
                tag="replicas",
                summary="List the processes of control on this database, with the duties of each.",
                answers={200: ReplicaList},
            )
        ]

    async def index(self, _request: Request) -> Response:
        """GET /v1/replicas."""
        return json(ReplicaList(replicas=await self._store.read(replicas.list_all)))
