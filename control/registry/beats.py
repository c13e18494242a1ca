"""Heartbeats of many clusters in one statement.

A heartbeat may be lost in a crash of the database without harm (the next one is due in a moment), so its
commit waits for no disk. A row that somebody else holds is passed over, not waited for: one busy cluster must
not keep the others' leases from being renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causeway.api import Load
    from control.registry.lane import Lane

__all__ = ["Beat", "columns", "fates", "renew"]

_JSON: Final = msgspec.json.Encoder()


class Beat(NamedTuple):
    """A cluster's sign of life."""

    cluster: str
    epoch: int
    load: Load


# set_config as a part of the statement, as it has to hold for this transaction, and there is only this one.
_RENEW: Final = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS done),
told AS (
    SELECT * FROM unnest(
        $2::text[], $3::bigint[], $4::integer[], $5::integer[], $6::double precision[], $7::bigint[],
        $8::bigint[], $9::text[]
    ) AS told (cluster, epoch, participants, streams, cpu, bandwidth_in, bandwidth_out, modules)
),
held AS (
    SELECT clusters.id FROM clusters JOIN told ON clusters.id = told.cluster
    WHERE clusters.epoch = told.epoch AND clusters.state = 'online'
        AND clusters.lease_expires_at > clock_timestamp()
    FOR NO KEY UPDATE OF clusters SKIP LOCKED
)
UPDATE clusters SET
    lease_expires_at = clock_timestamp() + make_interval(secs => $1),
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
"""


async def renew(lane: Lane, beats: Sequence[Beat], *, ttl: float) -> set[tuple[str, int]]:
    """Renew these leases (at most one beat for a cluster and epoch) for `ttl` seconds, and keep the loads.

    Return (cluster, epoch) of those that it did. One statement.
    """
    loads = [beat.load for beat in beats]
    rows = await lane.fetch(
        _RENEW,
        ttl,
        [beat.cluster for beat in beats],
        [beat.epoch for beat in beats],
        [load.participants for load in loads],
        [load.streams for load in loads],
        [load.cpu for load in loads],
        [load.bandwidth_in for load in loads],
        [load.bandwidth_out for load in loads],
        [_JSON.encode(load.modules).decode() for load in loads],
    )
    return {(cluster, epoch) for cluster, epoch in rows}


_FATES: Final = """
SELECT id, epoch, state = 'online' AND lease_expires_at > clock_timestamp() FROM clusters
WHERE id = ANY ($1::text[])
"""


async def fates(lane: Lane, clusters: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """Return {cluster: (epoch, whether its lease holds)} of those that there are. One statement."""
    return {cluster: (epoch, live) for cluster, epoch, live in await lane.fetch(_FATES, clusters)}


def columns(load: Load) -> dict[str, Any]:
    """Return the load as columns of clusters."""
    return {f"load_{name}": getattr(load, name) for name in load.__struct_fields__}
