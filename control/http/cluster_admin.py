"""Routes for operators of clusters: look, set limits and labels, drain, block; and the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct, structs

from causeway.api import (
    AuditList,
    BlockRequest,
    ClusterList,
    ClusterPatch,
    ClusterView,
    DrainRequest,
)
from control.errors import InvalidRequestError
from control.http.edge import Body, actor_of, if_match, json, no_content, part, query_of
from control.http.entry import CLUSTERS, IF_MATCH, OPERATORS, Entry
from control.http.etag import tag_of
from control.registry import audit, cluster_views

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from control.bell import Bell
    from control.cascade.breaker import Breakers
    from control.registry.store import Store

__all__ = ["ClusterAdminRoutes"]

_PATCH: Final = Body(ClusterPatch)
_DRAIN: Final = Body(DrainRequest, empty=DrainRequest())
_BLOCK: Final = Body(BlockRequest, empty=BlockRequest())


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of `GET /v1/audit`."""

    subject: Annotated[str, Meta(max_length=200)] | None = None
    before: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class ClusterAdminRoutes:
    """Handlers under /v1/clusters that are not for clusters themselves, and /v1/audit."""

    def __init__(self, store: Store, bell: Bell, breakers: Breakers) -> None:
        self._store = store
        self._bell = bell
        self._breakers = breakers

    def entries(self) -> list[Entry]:
        """Return the rows of the route table."""
        cluster = "/v1/clusters/{cluster}"
        unknown = ("cluster-unknown",)
        return [
            Entry(
                "GET",
                "/v1/clusters",
                OPERATORS,
                self.index,
                tag="clusters",
                summary="List all clusters, by id.",
                answers={200: ClusterList},
            ),
            Entry(
                "GET",
                cluster,
                CLUSTERS,
                self.show,
                tag="clusters",
                summary="Show a cluster as the registry sees it.",
                answers={200: ClusterView},
                tagged=True,
                problems=unknown,
            ),
            Entry(
                "PATCH",
                cluster,
                OPERATORS,
                self.patch,
                tag="clusters",
                summary="Set limits, labels, cost, ping URL or location of a cluster.",
                headers=(IF_MATCH,),
                body=_PATCH,
                answers={200: ClusterView},
                tagged=True,
                problems=(*unknown, "precondition-failed"),
            ),
            Entry(
                "POST",
                f"{cluster}/drain",
                OPERATORS,
                self.drain,
                tag="clusters",
                summary="Give the cluster no new placements; the view shows what is left.",
                body=_DRAIN,
                answers={200: ClusterView},
                tagged=True,
                problems=unknown,
            ),
            Entry(
                "DELETE",
                f"{cluster}/drain",
                OPERATORS,
                self.undrain,
                tag="clusters",
                summary="Undo a drain.",
                answers={204: None},
                problems=unknown,
            ),
            Entry(
                "PUT",
                f"{cluster}/block",
                OPERATORS,
                self.block,
                tag="clusters",
                summary="Give the cluster no new clients at all.",
                body=_BLOCK,
                answers={200: ClusterView},
                tagged=True,
                problems=unknown,
            ),
            Entry(
                "DELETE",
                f"{cluster}/block",
                OPERATORS,
                self.unblock,
                tag="clusters",
                summary="Undo a block.",
                answers={204: None},
                problems=unknown,
            ),
            Entry(
                "GET",
                "/v1/audit",
                OPERATORS,
                self.audit,
                tag="audit",
                summary="Who changed what, newest first.",
                query=AuditQuery,
                answers={200: AuditList},
            ),
        ]

    async def index(self, _request: Request) -> Response:
        """GET /v1/clusters."""
        found = await self._store.snapshot(cluster_views.list_all)
        return json(ClusterList(clusters=[self._with_breaker(view) for view in found]))

    async def show(self, request: Request) -> Response:
        """GET /v1/clusters/{cluster}."""
        view = await self._store.snapshot(cluster_views.show, part(request, "cluster"))
        return json(self._with_breaker(view), tag=tag_of(cluster_views.settings(view)))

    def _with_breaker(self, view: ClusterView) -> ClusterView:
        return structs.replace(view, breaker=self._breakers.view(view.id))

    async def patch(self, request: Request) -> Response:
        """PATCH /v1/clusters/{cluster}."""
        cluster = part(request, "cluster")
        wanted: ClusterPatch = await _PATCH.read(request)
        await self._store.write(
            cluster_views.patch, cluster, wanted, check=if_match(request).check, actor=actor_of(request)
        )
        return await self.show(request)

    async def drain(self, request: Request) -> Response:
        """POST /v1/clusters/{cluster}/drain."""
        wanted: DrainRequest = await _DRAIN.read(request)
        if wanted.deadline is not None and wanted.deadline.tzinfo is None:
            raise InvalidRequestError("deadline: needs its offset from UTC")
        await self._store.write(
            cluster_views.drain, part(request, "cluster"), wanted, actor=actor_of(request)
        )
        self._bell.any.set()
        return await self.show(request)

    async def undrain(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/drain."""
        await self._store.write(cluster_views.undrain, part(request, "cluster"), actor=actor_of(request))
        self._bell.any.set()
        return no_content()

    async def block(self, request: Request) -> Response:
        """PUT /v1/clusters/{cluster}/block."""
        wanted: BlockRequest = await _BLOCK.read(request)
        await self._store.write(
            cluster_views.block, part(request, "cluster"), wanted, actor=actor_of(request)
        )
        return await self.show(request)

    async def unblock(self, request: Request) -> Response:
        """DELETE /v1/clusters/{cluster}/block."""
        await self._store.write(cluster_views.unblock, part(request, "cluster"), actor=actor_of(request))
        return no_content()

    async def audit(self, request: Request) -> Response:
        """GET /v1/audit."""
        asked = query_of(request, AuditQuery)
        return json(
            await self._store.read(
                audit.entries, subject=asked.subject, before=asked.before, limit=asked.limit
            )
        )
