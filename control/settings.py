"""What the central service can be told. Every field has a safe default."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from causeway.telemetry import LogSettings
from control.agent_settings import AgentSettings
from control.attendance_settings import AttendanceSettings
from control.cascade_settings import CascadeSettings
from control.cluster_settings import LeaseSettings, OwtSettings, ProbeSettings, UpkeepSettings
from control.conference_settings import ConferenceSettings
from control.event_settings import EventSettings
from control.placement_settings import PlacementSettings, RegionSettings
from control.rate_settings import RateSettings
from control.registry.database import DatabaseSettings, StateSettings
from control.replica_settings import ReplicaSettings
from control.room_settings import RoomSettings
from control.token_settings import TokenSettings
from control.webhook_settings import WebhookSettings

__all__ = [
    "ControlSettings",
    "HttpSettings",
    "JoinSettings",
    "KeySettings",
    "LeaseSettings",
    "RateSettings",
    "ReconcileSettings",
    "Settings",
]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.keys]`: access keys that shall be valid, as full texts (`cw_<kind>_<id>_<secret>`).

    Empty (the default): none. With at least one of them nothing is generated at the first start. Better given
    by the environment than in a file: CAUSEWAY_CONTROL__KEYS__OPERATOR. Only their hashes are stored; taking
    one away here does not revoke it.
    """

    enrolment: str = ""
    application: str = ""
    operator: str = ""


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.http]`: limits of the HTTP edge."""

    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 24)] = 64 * 1024
    """Largest request body, bytes; more is answered 413. Default 64 KiB."""
    max_head_bytes: Annotated[int, Meta(ge=1024, le=1 << 20)] = 16 * 1024
    """Largest request line with all headers, bytes; more is answered 431. Default 16 KiB."""
    head_timeout: Seconds = 10.0
    """Seconds within which a started request's headers must be complete. Default 10."""
    keep_alive: Annotated[int, Meta(ge=1, le=3600)] = 30
    """Seconds after which an idle connection is closed. Default 30."""
    max_connections: Count = 4096
    """Open connections; further ones are closed at once. Default 4,096."""
    max_requests: Count = 1024
    """Requests worked on at the same time; further ones are answered 503. Default 1,024."""
    max_socket_bytes: Annotated[int, Meta(ge=1024, le=1 << 26)] = 4 * 1024 * 1024
    """Largest message on a WebSocket, bytes; a larger one ends it. Default 4 MiB."""
    socket_ping: Seconds = 5.0
    """Seconds between pings on a WebSocket, and for their answers; then it is taken for dead. Default 5."""


class JoinSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.join]`: sending clients to clusters."""

    timeout: Seconds = 10.0
    """Seconds that a join may take altogether. Default 10."""
    cluster_timeout: Seconds = 4.0
    """Seconds that one cluster gets to have the room ready, and again to make the token; then the next one is
    tried. Should be below half of `timeout`. Default 4."""
    max_clusters: Annotated[int, Meta(ge=1, le=16)] = 3
    """Clusters tried for one join. Default 3."""
    required_modules: tuple[str, ...] = ("conference",)
    """Modules that a cluster must have, if it reports any, to be given clients. Default: conference."""


class ReconcileSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.reconcile]`: making clusters follow the registry."""

    max_conferences: Count = 256
    """Conferences worked on at the same time by this process. Default 256."""
    max_per_cluster: Count = 16
    """Calls at the same time to one cluster; further ones are put off, so that a slow cluster does not hold
    up the others. Default 16."""
    room_timeout: Seconds = 10.0
    """Seconds for making or removing a room. Default 10."""
    cascade_timeout: Seconds = 200.0
    """Seconds for starting a cascade: an OWT cluster may need 90 for each of its bridges. Default 200."""
    claim_ttl: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    """Seconds after which another process may take over a conference from one that died. Default 10."""
    poll_interval: Seconds = 0.5
    """Seconds between looks for due work when no notice comes. Default 0.5."""
    retry_base: Seconds = 0.5
    """Seconds, upper end of the first retry's random delay; doubles with every failure. Default 0.5."""
    retry_cap: Seconds = 30.0
    """Seconds, upper end of every retry's random delay. Default 30."""


class ControlSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: the central service."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] = "127.0.0.1"
    """Address to listen on. Put a TLS proxy before anything but loopback. Default 127.0.0.1."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8400
    """TCP port; 0 takes a free one, which is printed. Default 8400."""
    share_port: bool = False
    """Let other replicas, of the same user, listen on the same port of this machine: connections are spread
    over them. A replica uses one core (docs/replicas.md, "One machine, many cores"). Default off."""
    master_key: str = ""
    """Base64 of 32 bytes: encrypts stored secrets. Replicas need the same one. Default: made at the first
    start and kept in `<state>/master.key`."""
    stop_timeout: Annotated[int, Meta(ge=1, le=600)] = 3
    """Seconds that requests get to finish when the service stops. Default 3."""
    templates_file: str = ""
    """TOML file with the templates of the first start; later it only adds such as were never there before.
    Default: the file that comes with Causeway (configs/templates.toml)."""
    keys: KeySettings = field(default_factory=KeySettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    attendance: AttendanceSettings = field(default_factory=AttendanceSettings)
    agents: AgentSettings = field(default_factory=AgentSettings)
    owt: OwtSettings = field(default_factory=OwtSettings)
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    conference: ConferenceSettings = field(default_factory=ConferenceSettings)
    events: EventSettings = field(default_factory=EventSettings)
    join: JoinSettings = field(default_factory=JoinSettings)
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    regions: dict[str, RegionSettings] = field(default_factory=dict)
    """What is known of each region beside its clusters, by name."""
    reconcile: ReconcileSettings = field(default_factory=ReconcileSettings)
    rooms: RoomSettings = field(default_factory=RoomSettings)
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    cascade: CascadeSettings = field(default_factory=CascadeSettings)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every table that `causeway control` reads."""

    state: StateSettings = field(default_factory=StateSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    log: LogSettings = field(default_factory=LogSettings)
