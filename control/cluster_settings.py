"""Clusters and how we know of them: `lease`, `probe`, `owt` and `upkeep` of `[control]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["LeaseSettings", "OwtSettings", "ProbeSettings", "UpkeepSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class LeaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.lease]`: how long a cluster's registration holds without a heartbeat."""

    ttl: Annotated[float, Meta(ge=0.3, le=3600)] = 6.0
    """Seconds. Clusters are told to beat three times as often. Default 6."""
    sweep_interval: Seconds = 0.5
    """Seconds between looks for leases that ran out; should be well below `ttl`. Default 0.5."""
    gather: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Seconds that a heartbeat waits for others, to be written with them; should be far below `ttl` / 3.
    Default 0.05."""


class ProbeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.probe]`: asking clusters for signs of life that send no heartbeat."""

    period: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds from one probe of a cluster to the next, give or take a tenth. Default 5."""
    timeout: Seconds = 3.0
    """Seconds that a cluster gets for its answer. Default 3."""
    failures_to_lost: Annotated[int, Meta(ge=1, le=100)] = 3
    """Probes in a row that must fail for the cluster to be lost. Default 3."""
    lost_period: Annotated[float, Meta(ge=0.1, le=86_400)] = 30.0
    """Seconds between probes of a lost cluster: when it answers it is back. Default 30."""
    max_at_once: Count = 64
    """Probes under way at the same time in this process. Default 64."""
    poll_interval: Seconds = 0.5
    """Seconds between looks for probes that are due. Default 0.5."""
    max_rooms: Annotated[int, Meta(ge=0, le=100_000)] = 50
    """Rooms of a cluster whose participants are asked for along with a probe, drawn by lot if it has
    more; 0: nobody is asked for. Default 50."""

    @property
    def lease(self) -> float:
        """Seconds that a lease holds after a probe that succeeded: until as many have failed as may."""
        return self.failures_to_lost * (self.period * 1.1 + self.timeout) + 2 * self.poll_interval


class OwtSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.owt]`: clusters and applications of the Open WebRTC Toolkit, unchanged (docs/owt.md)."""

    service_id: str = ""
    """Service id for clusters that register without one (the flat form of the registration)."""
    service_key: str = ""
    """The key that belongs to it. Better given by the environment: CAUSEWAY_CONTROL__OWT__SERVICE_KEY.
    Without both, such a registration is refused."""
    adopt_rooms: bool = True
    """Make a conference of a room that a cluster reports and nobody asked for here. Default on."""
    early_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    """Seconds that a room is remembered which a cluster reports before it registers; modules reported longer
    than that before a registration are forgotten by it. Default 600."""
    max_early_rooms: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """Rooms so remembered of one cluster; further ones are refused. Default 1,000."""


class UpkeepSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.upkeep]`: forgetting what is old."""

    interval: Seconds = 60.0
    """Seconds between looks. Default 60."""
    audit_days: Annotated[float, Meta(gt=0, le=36_500)] = 400.0
    """Days that the audit is kept. Default 400."""
    capacity_days: Annotated[float, Meta(gt=0, le=36_500)] = 7.0
    """Days after which the modules of a cluster that has gone are forgotten. Default 7."""
    report_hours: Annotated[float, Meta(gt=0, le=8760)] = 24.0
    """Hours that the numbers of clusters' reports are remembered: for so long a replica may be frozen without
    being believed what it carries out afterwards. Default 24."""
