"""Limits and timing of the event bridge: the table `[bridge.event]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from bridges.event.own.settings import OwnWireSettings

__all__ = ["EventSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=600)]


class EventSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one conference's stream may take, and how eagerly a lost one is dialled again."""

    hello_timeout: _Seconds = 5.0
    """Seconds that a new stream may take until it is open, the check of its token included."""
    retry_base: _Seconds = 0.1
    """Seconds that the first delay before redialling may take; doubled with every failure."""
    retry_cap: _Seconds = 5.0
    """Seconds that the delay before redialling grows to at most."""
    stable_after: _Seconds = 5.0
    """Seconds that a stream must have been open for its next redial to begin with the shortest delay."""
    max_event_bytes: Annotated[int, Meta(ge=1024, le=16 << 20)] = 1 << 20
    """Bytes of the largest event that is taken; `initialize` is the largest there is."""
    max_hello_bytes: Annotated[int, Meta(ge=1024)] = 4096
    """Bytes of the largest message before a stream is open."""
    max_unchecked_bytes: Annotated[int, Meta(ge=0)] = (1 << 20) + (64 << 10)
    """Bytes that a stream may hold while its token is being checked; the peer's whole state comes then."""
    max_queued_events: Annotated[int, Meta(ge=1)] = 1000
    """Events of one stream that may wait for the conference node."""
    max_backlog_bytes: Annotated[int, Meta(ge=1024)] = 4 << 20
    """Bytes of one stream that the peer may owe an acknowledgement for."""
    max_checks: Annotated[int, Meta(ge=1)] = 64
    """Tokens that are checked at once; further streams are refused meanwhile."""
    max_faults: Annotated[int, Meta(ge=1)] = 16
    """Faults of a peer on one connection after which it is closed, if no token of it was accepted."""
    max_links: Annotated[int, Meta(ge=1)] = 10_000
    """Links that are kept at once, in either role."""
    conferences_per_connection: Annotated[int, Meta(ge=1, le=128)] = 64
    """Conferences on one connection of OWT's wire; more go on a further one. QUIC stacks take some hundred
    streams; with few of them on each connection, acknowledgements and PINGs cost more than the events."""
    connections_per_peer: Annotated[int, Meta(ge=1)] = 512
    """Connections of OWT's wire that we dial to one other cluster."""
    own: OwnWireSettings = OwnWireSettings()
    """`[bridge.event.own]`: our own wire."""
    node_call_timeout: _Seconds = 2.0
    """Seconds that the conference node may take for one event."""
