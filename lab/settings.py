"""The settings of a laboratory cluster: the table `[lab]`. Every field has a unit and a default."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from bridges.internal.settings import InternalSettings
from causeway.telemetry import LogSettings

__all__ = [
    "KeySettings",
    "LabSettings",
    "NodeSettings",
    "PortalSettings",
    "RegistrarSettings",
    "RestSettings",
    "Settings",
]

_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Port = Annotated[int, Meta(ge=0, le=65535)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~@:-]*$(?!\n)", max_length=128)]


class RestSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab.rest]`: the management API."""

    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 24)] = 64 * 1024
    """Largest request body, bytes; more is answered 413. Default 64 KiB."""
    timestamp_check: bool = False
    """Refuse a signature older than the last one seen, as OWT can. Default off."""
    token_ttl: _Seconds = 180.0
    """Seconds within which a client's token must be shown at the portal. Default 180."""
    max_tokens: _Count = 10_000
    """Tokens that wait to be shown; beyond that the oldest is void. Default 10,000."""
    cascade_timeout: _Seconds = 10.0
    """Seconds that a bridge may take to accept the order to cascade. Default 10."""


class PortalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab.portal]`: the WebSocket of clients."""

    max_message_bytes: Annotated[int, Meta(ge=1024, le=1 << 22)] = 64 * 1024
    """Largest message of a client, bytes; more closes the connection. Default 64 KiB."""
    max_unsent: _Count = 2048
    """Messages that may wait for one client; a client that is slower is disconnected. Default 2,048."""
    max_clients: _Count = 1000
    """Connections at once. Default 1,000."""
    foreign_sources: bool = False
    """Fetch clients' tracks also from other addresses than the client's own. Default off."""
    join_timeout: _Seconds = 10.0
    """Seconds until a connection must have joined. Default 10."""


class NodeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab.node]`: the conversation with bridges."""

    max_unsent: _Count = 4096
    """Messages that may wait for one bridge; a bridge that is slower is disconnected. Default 4,096."""
    call_timeout: _Seconds = 2.0
    """Seconds that a bridge may take to answer a call. Default 2, as in OWT."""
    max_workers: _Count = 16
    """Bridges connected at once. Default 16."""
    republish_cap: _Seconds = 1.0
    """Seconds that the delay between attempts to pull a remote track grows to at most. Default 1."""


class RegistrarSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab.registrar]`: reporting to control."""

    call_timeout: _Seconds = 3.0
    """Seconds that control may take to answer. Default 3."""
    retry_base: _Seconds = 0.2
    """Seconds, upper end of the first retry's random delay; doubles with every failure. Default 0.2."""
    retry_cap: _Seconds = 2.0
    """Seconds that the delay grows to at most. Default 2."""
    max_pending: _Count = 10_000
    """Reports that control has not taken; beyond that everything is told anew. Default 10,000."""
    stop_timeout: _Seconds = 1.0
    """Seconds for taking the registration back at an orderly stop. Default 1."""


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab.keys]`: control's public keys, with which clients' tokens are checked."""

    refresh_interval: _Seconds = 300.0
    """Seconds between fetches while all is well. Default 300."""
    min_interval: _Seconds = 2.0
    """Seconds at least between fetches for the sake of a token whose key is not known. Default 2."""
    timeout: _Seconds = 3.0
    """Seconds that control may take to send the keys. Default 3."""
    max_bytes: Annotated[int, Meta(ge=1024, le=1 << 20)] = 64 * 1024
    """Largest answer, bytes. Default 64 KiB."""
    leeway: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """Seconds that control's clock and ours may be apart. Default 10."""
    max_shown: _Count = 100_000
    """Tokens remembered as shown until they run out; beyond that no client gets in. Default 100,000."""


class LabSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lab]`: who this cluster is, where it listens, whom it tells."""

    cluster: _Name = "lab"
    """Id of the cluster. Default `lab`."""
    region: _Name = "local"
    """Region that it serves. Default `local`."""
    driver: Literal["causeway", "owt"] = "causeway"
    """Kind of cluster that it registers as: `causeway` takes tokens that control signs, `owt` is asked for
    each one, as OWT clusters are. Default causeway."""
    instance: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._~@:-]*)?$(?!\n)", max_length=64)] = ""
    """Which deployment this is; another one cannot take over its id while it lives. Default: made of the
    cluster's and the machine's name."""
    issuer: Annotated[str, Meta(min_length=1, max_length=256)] = "causeway"
    """Whose signed tokens are taken: control's `control.tokens.issuer`. Default causeway."""
    host: str = "127.0.0.1"
    """Address to listen on, for everything. Default 127.0.0.1."""
    advertised_host: str = ""
    """Name or address at which others reach `host`. Default: `host` itself."""
    port: _Port = 0
    """TCP port of management API, portal and node. Default 0: a free one."""
    internal_port: _Port = 0
    """TCP port where the hub serves media. Default 0: a free one."""
    control_url: str = ""
    """Base URL of control. Default empty: nobody is told anything."""
    enrolment_key: str = ""
    """Key to register with, `cw_enrolment_…`; needed with `control_url`."""
    service_id: str = ""
    """Name that callers of the management API sign with. Default: drawn at each start."""
    service_key: str = ""
    """Key that they sign with. Default: drawn at each start."""
    node_secret: str = ""
    """What cluster and bridges know of each other, also needed to read `/lab/stats`. Default: drawn at each
    start, so that nobody gets in."""
    ping_interval: _Seconds = 1.0
    """Seconds between pings on every WebSocket. Default 1."""
    ping_timeout: _Seconds = 2.0
    """Seconds without a pong after which the other end counts as gone. Default 2."""
    empty_room_linger: _Seconds = 30.0
    """Seconds that a room without local participants goes on before it is closed on the node. Default 30."""
    max_rooms: _Count = 1000
    """Rooms at once. Default 1,000."""
    max_streams_per_participant: _Count = 16
    """Streams that one participant may publish. Default 16."""
    stop_timeout: _Seconds = 2.5
    """Seconds that an orderly stop may take. Default 2.5."""
    rest: RestSettings = field(default_factory=RestSettings)
    """`[lab.rest]`"""
    portal: PortalSettings = field(default_factory=PortalSettings)
    """`[lab.portal]`"""
    node: NodeSettings = field(default_factory=NodeSettings)
    """`[lab.node]`"""
    keys: KeySettings = field(default_factory=KeySettings)
    """`[lab.keys]`"""
    registrar: RegistrarSettings = field(default_factory=RegistrarSettings)
    """`[lab.registrar]`"""
    internal: InternalSettings = field(default_factory=InternalSettings)
    """`[lab.internal]`: limits of the internal media transport."""

    @property
    def public_host(self) -> str:
        """Where others reach this cluster."""
        return self.advertised_host or self.host


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cluster process reads of the settings file."""

    lab: LabSettings = field(default_factory=LabSettings)
    log: LogSettings = field(default_factory=LogSettings)
