"""What an operator asks of control: clusters from outside, templates, keys, the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from causeway.api import (
    AuditList,
    ClusterList,
    ClusterView,
    KeyCreated,
    KeyList,
    KeyView,
    ReplicaList,
    ReplicaView,
    TemplateView,
)
from causeway.api.tokens import SigningKeyList
from causeway.client.connection import Connection, Tagged, headers_of, path_of, query_of
from causeway.keys import KeyKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.api import BlockRequest, ClusterPatch, DrainRequest, KeyCreate, Template
    from causeway.api.tokens import SigningKeyView

__all__ = ["OperatorCalls"]


class _KeyQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: KeyKind | None = None
    revoked: bool = False
    cursor: str | None = None


class _AuditQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    subject: str | None = None
    before: int | None = None
    limit: int | None = None


class OperatorCalls(Connection):
    """Calls for operator keys."""

    # --- clusters -----------------------------------------------------------------------------

    async def list_clusters(self) -> list[ClusterView]:
        """Return all clusters, by id."""
        return (await self._ask("GET", "clusters", ClusterList)).clusters

    async def get_cluster_tagged(self, cluster: str) -> Tagged[ClusterView]:
        """Return one cluster with the ETag for `update_cluster`."""
        return await self._ask_tagged("GET", path_of("clusters", cluster), ClusterView)

    async def update_cluster(
        self, cluster: str, patch: ClusterPatch, *, if_match: str | None = None
    ) -> ClusterView:
        """Change what operators decide of a cluster: limits, labels, cost."""
        headers = headers_of(if_match=if_match)
        return await self._ask(
            "PATCH", path_of("clusters", cluster), ClusterView, body=patch, headers=headers
        )

    async def drain_cluster(self, cluster: str, request: DrainRequest) -> ClusterView:
        """Give the cluster no new conferences."""
        return await self._ask("POST", path_of("clusters", cluster, "drain"), ClusterView, body=request)

    async def undrain_cluster(self, cluster: str) -> None:
        """Take a drain back."""
        await self._call("DELETE", path_of("clusters", cluster, "drain"))

    async def block_cluster(self, cluster: str, request: BlockRequest) -> ClusterView:
        """Give the cluster no new clients at all."""
        return await self._ask("PUT", path_of("clusters", cluster, "block"), ClusterView, body=request)

    async def unblock_cluster(self, cluster: str) -> None:
        """Take a block back."""
        await self._call("DELETE", path_of("clusters", cluster, "block"))

    async def list_audit(
        self, *, subject: str | None = None, before: int | None = None, limit: int | None = None
    ) -> AuditList:
        """Return who changed what, newest first; `before`: the `next` of the page before."""
        query = _AuditQuery(subject=subject, before=before, limit=limit)
        return await self._ask("GET", f"audit{query_of(query)}", AuditList)

    async def list_replicas(self) -> list[ReplicaView]:
        """Return the processes of control, the youngest first."""
        return (await self._ask("GET", "replicas", ReplicaList)).replicas

    # --- templates ----------------------------------------------------------------------------

    async def put_template(
        self, name: str, template: Template, *, if_match: str | None = None
    ) -> TemplateView:
        """Save a template as a new version; conferences that are there keep theirs."""
        headers = headers_of(if_match=if_match)
        return await self._ask(
            "PUT", path_of("templates", name), TemplateView, body=template, headers=headers
        )

    async def delete_template(self, name: str, *, if_match: str | None = None) -> None:
        """Let no new conference be of this type."""
        await self._call("DELETE", path_of("templates", name), headers=headers_of(if_match=if_match))

    # --- keys ---------------------------------------------------------------------------------

    async def create_key(self, wish: KeyCreate) -> KeyCreated:
        """Make an access key; its text is in this answer and nowhere else."""
        return await self._ask("POST", "keys", KeyCreated, body=wish)

    async def get_key(self, key: str) -> KeyView:
        """Return an access key, by its id."""
        return await self._ask("GET", path_of("keys", key), KeyView)

    async def each_key(self, *, kind: KeyKind | None = None, revoked: bool = False) -> AsyncIterator[KeyView]:
        """Go through the access keys, oldest first; with `revoked`, those too."""
        query = _KeyQuery(kind=kind, revoked=revoked)
        while True:
            page = await self._ask("GET", f"keys{query_of(query)}", KeyList)
            for key in page.keys:
                yield key
            if page.next is None:
                return
            query = structs.replace(query, cursor=page.next)

    async def revoke_key(self, key: str) -> None:
        """Revoke an access key, by its id, in every replica."""
        await self._call("DELETE", path_of("keys", key))

    async def list_signing_keys(self) -> list[SigningKeyView]:
        """Return the keys that sign join tokens, newest first."""
        return (await self._ask("GET", "signing-keys", SigningKeyList)).keys

    async def rotate_signing_keys(self) -> list[SigningKeyView]:
        """Have a new key sign join tokens; former ones stay published while tokens of theirs may be about."""
        return (await self._ask("POST", "signing-keys", SigningKeyList)).keys
