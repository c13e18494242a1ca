"""The settings of a bridge process: the table `[bridge]`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridges.control.settings import ControlSettings
from bridges.event.settings import EventSettings
from bridges.media.settings import MediaSettings
from bridges.node.amqp.settings import AmqpSettings
from bridges.node.websocket import NodeSettings
from bridges.quic import QuicSettings
from bridges.status.settings import StatusSettings
from causeway.telemetry import LogSettings

__all__ = ["KINDS", "BridgeKind", "BridgeSettings", "Settings"]

BridgeKind = Literal["event", "media"]
KINDS: tuple[BridgeKind, ...] = ("event", "media")

_Port = Annotated[int, Meta(ge=0, le=65535)]


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this bridge works for, and where it listens."""

    cluster: Annotated[str, Meta(max_length=128)] = ""
    """Id of the cluster that the bridges belong to; required, unless the cluster manager can be asked."""
    node_carrier: Literal["websocket", "amqp"] = "websocket"
    """How the cluster is reached: `websocket` at `node_url`, or `amqp`, which is how a cluster of the Open
    WebRTC Toolkit (OWT) reaches its agents: then `[bridge.amqp]` says where the broker is."""
    node_url: str = ""
    """Where the cluster takes its workers: `ws://host:port/node` or `wss://…`; required for `websocket`."""
    node_secret: str = ""
    """What bridges and cluster know of each other; the same text as in the cluster's own settings."""
    workers: Annotated[int, Meta(ge=0, le=256)] = 1
    """Bridge processes, each with a part of the conferences; 0: one for each core. They take the ports from
    `event_port` and `media_port` on, and control knows each as an agent of its own."""
    kinds: tuple[BridgeKind, ...] = KINDS
    """Which bridges this process runs."""
    host: str = "127.0.0.1"
    """Address to listen on for other clusters' bridges, and for the media of the own cluster's agents."""
    advertised_host: str = ""
    """Name or address at which others reach `host`; empty: `host` itself."""
    event_port: _Port = 0
    """UDP port of the event bridge; 0: a free one."""
    media_port: _Port = 0
    """UDP port of the media bridge; 0: a free one."""
    quic: QuicSettings = QuicSettings()
    """`[bridge.quic]`"""
    node: NodeSettings = NodeSettings()
    """`[bridge.node]`"""
    amqp: AmqpSettings = AmqpSettings()
    """`[bridge.amqp]`"""
    event: EventSettings = EventSettings()
    """`[bridge.event]`"""
    media: MediaSettings = MediaSettings()
    """`[bridge.media]`"""
    control: ControlSettings = ControlSettings()
    """`[bridge.control]`: what makes this process an agent of control."""
    status: StatusSettings = StatusSettings()
    """`[bridge.status]`: where its figures can be read on this machine."""

    @property
    def public_host(self) -> str:
        """Where others reach this bridge."""
        return self.advertised_host or self.host

    def __repr__(self) -> str:  # without the secret
        return f"BridgeSettings(cluster={self.cluster!r}, node_url={self.node_url!r}, kinds={self.kinds!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `causeway bridge` reads of the settings file."""

    bridge: BridgeSettings = BridgeSettings()
    log: LogSettings = LogSettings()
