"""Limits and timing of our own wire: the table `[bridge.event.own]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from bridges.wire.own.messages import HelloLimits

__all__ = ["OwnWireSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=600)]


class OwnWireSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one connection, one conference and one origin may take, and how often what is said."""

    lanes: Annotated[int, Meta(ge=1, le=16)] = 4
    """Streams of a connection that its conferences are spread over."""
    max_channels: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Conferences on one connection."""
    max_message_bytes: Annotated[int, Meta(ge=65_536, le=16 << 20)] = 1 << 20
    """Bytes of one message."""
    max_hello_bytes: Annotated[int, Meta(ge=1024, le=65_536)] = 4096
    """Bytes of a message before the two ends know each other."""
    max_origins: Annotated[int, Meta(ge=1, le=4096)] = 256
    """Clusters whose events one conference takes."""
    max_hops: Annotated[int, Meta(ge=1, le=64)] = 16
    """Clusters that an event may have come by."""
    max_entries: Annotated[int, Meta(ge=1)] = 20_000
    """Participants and streams of one origin in one conference, taken together."""
    max_state_bytes: Annotated[int, Meta(ge=65_536)] = 16 << 20
    """Bytes that the participants and streams of one origin in one conference may take."""
    max_conference_bytes: Annotated[int, Meta(ge=65_536)] = 64 << 20
    """Bytes that the participants and streams of all origins in one conference may take."""
    max_unknown: Annotated[int, Meta(ge=0)] = 10_000
    """Messages of unknown numbers that are passed over on one connection."""
    max_strikes: Annotated[int, Meta(ge=0)] = 100
    """Wrong messages that cost single conferences before they cost the connection."""
    max_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    """Conferences whose token may be under examination at once on one connection."""
    log_events: Annotated[int, Meta(ge=1)] = 1000
    """Events of one origin in one conference that are kept for whoever comes back."""
    log_bytes: Annotated[int, Meta(ge=1024)] = 512 << 10
    """Bytes that these may take; beyond, the oldest go, and who needs them gets a snapshot."""
    max_log_bytes: Annotated[int, Meta(ge=65_536)] = 256 << 20
    """Bytes that the kept events of all conferences may take; beyond, those that grow lose their oldest."""
    credit_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 256 << 10
    """Bytes of events of one conference that may be on their way to our node, from one peer."""
    snapshot_part_bytes: Annotated[int, Meta(ge=1024)] = 64 << 10
    """Bytes of state after which a snapshot is continued in another message."""
    hello_timeout: _Seconds = 5.0
    """Seconds that the two ends may take to know each other."""
    open_timeout: _Seconds = 10.0
    """Seconds that a conference may take to be opened, the check of its token included."""
    ping_interval: _Seconds = 2.0
    """Seconds between measurements of the round trip."""
    ping_timeout: _Seconds = 10.0
    """Seconds without an answer after which the peer is given up."""
    digest_interval: _Seconds = 5.0
    """Seconds after which the state of an origin is compared, if it has changed."""
    quiet_digest_interval: _Seconds = 60.0
    """Seconds after which the state of an origin is compared though it has not changed."""
    backlog_bytes: Annotated[int, Meta(ge=16_384)] = 512 << 10
    """Bytes of one lane that the peer may owe an acknowledgement for; what is more waits in the logs."""
    stable_after: _Seconds = 0.5
    """Seconds that a conference must have been carried for its next redial to begin with the shortest delay:
    less than on OWT's wire, as a break costs little here."""
    origin_grace: _Seconds = 10.0
    """Seconds that a cluster may be out of reach before our node is told that its participants are gone."""

    @property
    def limits(self) -> HelloLimits:
        """What a peer is told."""
        return HelloLimits(
            message=self.max_message_bytes,
            channels=self.max_channels,
            lanes=self.lanes,
            waiting=self.max_waiting,
        )
