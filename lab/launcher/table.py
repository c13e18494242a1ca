"""What the laboratory shows: tables for a terminal, one line for a log, a summary for the end. Pure.

Everything shown is in a Snapshot; nothing here looks at a clock, a process or the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lab.launcher.verdict import Verdict

__all__ = ["ClusterRow", "LinkRow", "ParticipantRow", "Snapshot", "bit_rate", "line", "render", "summary"]

_GOOD: Final = frozenset({"online", "running", "up"})
_BAD: Final = frozenset({"lost", "failed", "down"})


@dataclass(frozen=True, kw_only=True)
class ClusterRow:
    """A region's cluster and its bridge."""

    cluster: str
    region: str
    state: str
    """As control sees it: online, lost, unregistered, or `-` before the registration."""
    lease: float | None
    """Seconds that the lease still holds; negative when it has run out."""
    bridge: str
    """State of the bridge process: starting, running, backing off …"""
    restarts: int
    """How often the bridge was restarted."""
    local: int = 0
    """Participants who are here."""
    remote: int = 0
    """Participants of other regions who are shown here."""
    events: int = 0
    """Conference events that crossed this bridge, both directions."""
    frames: int = 0
    """Media frames that crossed this bridge, both directions."""
    bits: float = 0.0
    """Media through this bridge, bit/s, both directions."""
    dropped: int = 0
    """Frames that this bridge dropped."""


@dataclass(frozen=True, kw_only=True)
class LinkRow:
    """A cascade between two clusters."""

    dialer: str
    listener: str
    state: str
    age: float
    """Seconds in this state."""
    attempts: int


@dataclass(frozen=True, kw_only=True)
class ParticipantRow:
    """A participant process; counts are of pictures."""

    name: str
    region: str
    publishes: bool
    state: str
    frames: int = 0
    """Pictures sent, or decoded and readable."""
    rate: float = 0.0
    """Pictures a second, lately."""
    audio: int = 0
    """Audio frames sent or received."""
    p50: float | None = None
    p99: float | None = None
    """Delay from capture to arrival across the bridges, milliseconds."""
    dropped: int = 0
    """Pictures that arrived and were not decoded; for a publisher, frames that it dropped."""
    longest_gap: float = 0.0
    """Seconds between two pictures decoded one after the other, at most."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything at one moment."""

    elapsed: float
    """Seconds since everything runs; 0 while it starts."""
    doing: str
    """What is going on, in a few words."""
    conference: str = "-"
    clusters: list[ClusterRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    participants: list[ParticipantRow] = field(default_factory=list)


def render(snapshot: Snapshot) -> RenderableType:
    """Return the live view for a terminal."""
    title = Text.assemble(
        ("causeway lab", "bold"),
        f"  conference {snapshot.conference}  {snapshot.elapsed:.0f} s  {snapshot.doing}",
    )
    return Group(title, _clusters(snapshot), _links(snapshot), _participants(snapshot))


def line(snapshot: Snapshot) -> str:
    """Return one line for a log: who is there, what is linked, what is decoded."""
    online = sum(row.state == "online" for row in snapshot.clusters)
    up = sum(row.state == "up" for row in snapshot.links)
    parts = [
        f"{snapshot.elapsed:5.1f} s  {snapshot.doing}",
        f"clusters {online}/{len(snapshot.clusters)}",
        f"links up {up}/{len(snapshot.links)}",
        f"events {sum(row.events for row in snapshot.clusters)}",
        f"frames {sum(row.frames for row in snapshot.clusters)}",
        bit_rate(sum(row.bits for row in snapshot.clusters)),
    ]
    for row in snapshot.participants:
        if row.publishes:
            parts.append(f"{row.region} sent {row.frames}")
        else:
            parts.append(f"{row.region} decoded {row.frames}, delay {_delay(row)}, dropped {row.dropped}")
    return " | ".join(parts)


def summary(snapshot: Snapshot, verdict: Verdict) -> str:
    """Return the lines printed at the end; the last one is the verdict."""
    lines = []
    for row in snapshot.participants:
        if row.publishes:
            lines.append(f"{row.region}: published {row.frames} pictures and {row.audio} audio frames")
        else:
            lines.append(
                f"{row.region}: decoded {row.frames} pictures, received {row.audio} audio frames, "
                f"frame delay {_delay(row)}, dropped {row.dropped}, longest gap {row.longest_gap:.1f} s"
            )
    for cluster in snapshot.clusters:
        restarts = f", restarts {cluster.restarts}" if cluster.restarts else ""
        lines.append(
            f"bridge {cluster.region}: forwarded {cluster.events} events and {cluster.frames} frames, "
            f"dropped {cluster.dropped}{restarts}"
        )
    if verdict.good:
        lines.append(
            f"PASSED: {verdict.matched} pictures were decoded in the other regions; {verdict.reason}"
        )
    else:
        lines.append(f"FAILED: {verdict.reason}")
    return "\n".join(lines)


def bit_rate(bits: float) -> str:
    """Return bit/s with a unit that a person reads easily."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:  # noqa: PLR2004 - decimal prefixes, as everywhere in networking
            return f"{bits:.0f} {unit}" if unit != "Mbit/s" else f"{bits:.1f} {unit}"
        bits /= 1000
    return f"{bits:.1f} Gbit/s"


def _clusters(snapshot: Snapshot) -> Table:
    table = _table("cluster", "region", "state", "lease", "bridge", "people here + remote")
    for heading in ("events", "frames", "bit rate", "dropped"):
        table.add_column(heading, justify="right")
    for row in snapshot.clusters:
        lease = "-" if row.lease is None else f"{row.lease:.1f} s left"
        bridge = _coloured(row.bridge)
        if row.restarts:
            bridge.append(f" (restarts {row.restarts})")
        table.add_row(
            row.cluster,
            row.region,
            _coloured(row.state),
            lease,
            bridge,
            f"{row.local} + {row.remote}",
            str(row.events),
            str(row.frames),
            bit_rate(row.bits),
            str(row.dropped),
        )
    return table


def _links(snapshot: Snapshot) -> Table:
    table = _table("link (dialer → listener)", "state", "for", "attempts")
    for row in snapshot.links:
        table.add_row(
            f"{row.dialer} → {row.listener}", _coloured(row.state), f"{row.age:.0f} s", str(row.attempts)
        )
    return table


def _participants(snapshot: Snapshot) -> Table:
    table = _table("participant", "region", "state", "")
    for heading in ("pictures", "per second", "audio", "delay p50 / p99", "dropped"):
        table.add_column(heading, justify="right")
    for row in snapshot.participants:
        table.add_row(
            row.name,
            row.region,
            _coloured(row.state),
            "sends" if row.publishes else "decodes",
            str(row.frames),
            f"{row.rate:.1f}",
            str(row.audio),
            "" if row.publishes else _delay(row),
            "" if row.publishes else str(row.dropped),
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _coloured(state: str) -> Text:
    style = "green" if state in _GOOD else "red" if state in _BAD else "yellow"
    return Text(state, style=style)


def _delay(row: ParticipantRow) -> str:
    if row.p50 is None or row.p99 is None:
        return "-"
    return f"p50 {row.p50:.1f} ms, p99 {row.p99:.1f} ms"
