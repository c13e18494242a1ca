"""Heartbeats of many clusters in one statement.

A heartbeat may be lost in a crash of the database without harm (the next one is due in a moment), so its
commit waits for no disk. A row that somebody else holds is passed over, not waited for: one busy cluster must
not keep the others' leases from being renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from sqlalchemy import select, text

from control.registry.clusters import online
from control.registry.tables import clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.api import Load

__all__ = ["Beat", "columns", "fates", "renew"]


class Beat(NamedTuple):
    """A cluster's sign of life."""

    cluster: str
    epoch: int
    load: Load


# set_config as a part of the statement, as it has to hold for this transaction, and there is only this one.
_RENEW: Final = text("""
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS done),
told AS (
    SELECT * FROM unnest(
        CAST(:clusters AS text[]), CAST(:epochs AS bigint[]), CAST(:participants AS integer[]),
        CAST(:streams AS integer[]), CAST(:cpu AS double precision[]), CAST(:bandwidth_in AS bigint[]),
        CAST(:bandwidth_out AS bigint[]), CAST(:modules AS text[])
    ) AS told (cluster, epoch, participants, streams, cpu, bandwidth_in, bandwidth_out, modules)
),
held AS (
    SELECT clusters.id FROM clusters JOIN told ON clusters.id = told.cluster
    WHERE clusters.epoch = told.epoch AND clusters.state = 'online'
        AND clusters.lease_expires_at > clock_timestamp()
    FOR NO KEY UPDATE OF clusters SKIP LOCKED
)
UPDATE clusters SET
    lease_expires_at = clock_timestamp() + make_interval(secs => :ttl),
    last_seen_at = clock_timestamp(),
    load_participants = told.participants,
    load_streams = told.streams,
    load_cpu = told.cpu,
    load_bandwidth_in = told.bandwidth_in,
    load_bandwidth_out = told.bandwidth_out,
    load_modules = CAST(told.modules AS jsonb)
FROM told, held, quick
WHERE clusters.id = held.id AND clusters.id = told.cluster AND clusters.epoch = told.epoch
    AND quick.done IS NOT NULL
RETURNING clusters.id, clusters.epoch
""")


async def renew(connection: AsyncConnection, beats: Sequence[Beat], *, ttl: float) -> set[tuple[str, int]]:
    """Renew these leases (at most one beat for a cluster and epoch) for `ttl` seconds, and keep the loads.

    Return (cluster, epoch) of those that it did. One statement.
    """
    rows = await connection.execute(
        _RENEW,
        {
            "clusters": [beat.cluster for beat in beats],
            "epochs": [beat.epoch for beat in beats],
            "participants": [beat.load.participants for beat in beats],
            "streams": [beat.load.streams for beat in beats],
            "cpu": [beat.load.cpu for beat in beats],
            "bandwidth_in": [beat.load.bandwidth_in for beat in beats],
            "bandwidth_out": [beat.load.bandwidth_out for beat in beats],
            "modules": [msgspec.json.encode(beat.load.modules).decode() for beat in beats],
            "ttl": ttl,
        },
    )
    return {(row.id, row.epoch) for row in rows.all()}


async def fates(connection: AsyncConnection, clusters_: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """Return {cluster: (epoch, whether its lease holds)} of those that there are. One statement."""
    rows = await connection.execute(
        select(clusters.c.id, clusters.c.epoch, online().label("live")).where(clusters.c.id.in_(clusters_))
    )
    return {row.id: (row.epoch, row.live) for row in rows.all()}


def columns(load: Load) -> dict[str, Any]:
    """Return the load as columns of clusters."""
    return {f"load_{name}": getattr(load, name) for name in load.__struct_fields__}
