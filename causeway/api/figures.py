"""What bridges measure of their links, as types: for the agent channel, the API and `causeway bridge status`.

What is zero, empty or unknown is left out of the JSON. Counts are since the bridge started and never go back
but at its next start; a link that was forgotten and made anew begins at zero. A reader passes over fields
that it does not know: a bridge may be a release ahead. No secret is ever in here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = [
    "MAX_LINKS",
    "MAX_ORIGINS",
    "MAX_PEERS",
    "BridgeFigures",
    "ControlFigures",
    "FiguresKind",
    "LinkFigures",
    "OriginFigures",
    "PeerFigures",
    "ProcessFigures",
]

MAX_LINKS = 50_000
MAX_PEERS = 10_000
MAX_ORIGINS = 1_000

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Millis = Annotated[float, Meta(ge=0, le=1e12)]
Name = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*$")]
FiguresKind = Annotated[str, Meta(max_length=32, pattern=r"^[^\x00]*$")]
"""`event`, `media`, or what a later release knows."""
Why = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")]


class _Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class OriginFigures(_Figures, frozen=True, kw_only=True):
    """On our own wire: how far the events of one cluster have come, on one link of one conference."""

    origin: Name
    """Cluster in which the events happened."""
    incarnation: Name = ""
    """Start of the origin that numbered them."""
    seq: Count = 0
    """Number of the last event that this end has."""
    told: Count = 0
    """Number of the last event that the peer was sent; 0: it gets none of this origin from here."""
    hops: Count = 0
    """Clusters that the events have passed on their way here."""


class LinkFigures(_Figures, frozen=True, kw_only=True):
    """One end of a link: one conference towards one other cluster, its events or its media."""

    kind: FiguresKind
    conference: Name
    peer: Name
    """The cluster at the other end."""
    state: Name = "down"
    """`up` or `down`."""
    since: datetime | None = None
    """When the state began, UTC."""
    role: Name = "dialer"
    """Which end this is: `dialer` or `listener`."""
    wire: Name = ""
    """What the two ends speak: `owt` or `causeway/1`; empty while there is no connection."""
    sequence_in: Count = 0
    """Events taken from the peer on the present stream; on our wire the numbers are in `origins`."""
    sequence_out: Count = 0
    """Events given to the peer on the present stream; on our wire the last number of our own cluster."""
    origins: Annotated[list[OriginFigures], Meta(max_length=MAX_ORIGINS)] = field(default_factory=list)
    lag_in: Count = 0
    """Events that wait for our conference node."""
    lag_out: Count = 0
    """Events that the peer is to get and was not sent yet; 0 on OWT's wire, where they are in `backlog`."""
    backlog: Count = 0
    """Bytes that were written and not acknowledged yet."""
    lag_ms: Millis | None = None
    """Age of the oldest event that waits for our conference node."""
    messages_in: Count = 0
    """Events, or media frames."""
    messages_out: Count = 0
    bytes_in: Count = 0
    """Of the conference, on its streams; not what QUIC adds."""
    bytes_out: Count = 0
    drops: Count = 0
    """Events that a node refused or a limit cost, or media frames that did not go out, or come, in time."""
    duplicates: Count = 0
    """Events that came again and were passed over."""
    tracks_in: Count = 0
    tracks_out: Count = 0
    connects: Count = 0
    """Times that the link came up."""
    reconnects: Count = 0
    """Of these, those after the first."""
    datagrams_lost: Count = 0
    """Of media on our own wire, on the way to the peer."""
    datagrams_repeated: Count = 0
    """Of these, those that were sent again."""
    datagrams_parity: Count = 0
    """Sent to the peer in advance, to make up for losses."""
    datagrams_recovered: Count = 0
    """Lost on the way here, and brought back by parity."""
    queued_bytes: Count = 0
    """Media that waits to be sent to the peer."""
    held_bytes: Count = 0
    """Media from the peer that has not come whole, or that parity may need."""
    internal_bytes: Count = 0
    """Media from the peer that waits for agents of our own cluster to take it."""
    tracks_slowed: Count = 0
    """Of the tracks that go out, those whose source was asked for less than it would send."""
    resumes: Count = 0
    """Breaks after which only what was missing had to be sent."""
    snapshots: Count = 0
    """Times that the whole state was sent or taken."""
    divergences: Count = 0
    """Times that the two ends' states were found to differ, and were repaired."""
    round_trip_ms: Millis | None = None
    error: Why = ""
    """Why it is down, or why it last was."""


class PeerFigures(_Figures, frozen=True, kw_only=True):
    """All of one bridge's connections to another cluster."""

    kind: FiguresKind
    peer: Name
    wires: Annotated[list[Name], Meta(max_length=16)] = field(default_factory=list)
    connections: Count = 0
    streams: Count = 0
    links: Count = 0
    """That are up."""
    bytes_in: Count = 0
    """Of all datagrams of the connections that there are now."""
    bytes_out: Count = 0
    round_trip_ms: Millis | None = None
    """Smoothed; the best of the connections."""
    jitter_ms: Millis | None = None


class BridgeFigures(_Figures, frozen=True, kw_only=True):
    """One bridge of a process."""

    kind: FiguresKind
    port: Count = 0
    """UDP port at which it listens."""
    node_connected: bool = False
    """Whether its cluster has it as a worker."""
    links: Annotated[list[LinkFigures], Meta(max_length=MAX_LINKS)] = field(default_factory=list)
    peers: Annotated[list[PeerFigures], Meta(max_length=MAX_PEERS)] = field(default_factory=list)
    counters: Annotated[dict[Name, Count], Meta(max_length=256)] = field(default_factory=dict)
    """What was refused and why: tokens, malformed messages, floods … docs/operating.md has the names."""


class ControlFigures(_Figures, frozen=True, kw_only=True):
    """How a process stands with control."""

    agent: Name
    connected: bool = False
    version: Count | None = None
    """Of the desired state that is acted on."""
    conferences: Count = 0
    links_wanted: Count = 0
    links_up: Count = 0


class ProcessFigures(_Figures, frozen=True, kw_only=True):
    """A bridge process, as its status endpoint shows it."""

    cluster: Name
    version: Name
    """Of the software."""
    pid: Count = 0
    started_at: datetime
    at: datetime
    bridges: Annotated[list[BridgeFigures], Meta(max_length=16)] = field(default_factory=list)
    control: ControlFigures | None = None
    """None: the process is no agent."""
