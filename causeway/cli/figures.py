"""How what bridges measure is drawn, wherever it comes from: a status endpoint, or control.

Imports rich: commands import it when they draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from causeway.cli.tables import facts, heading, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causeway.api.figures import LinkFigures, PeerFigures
    from causeway.api.plans import LinkEnd

__all__ = ["draw_counters", "draw_ends", "draw_links", "draw_peers"]

_LINK: Final = (
    "state",
    "wire",
    "sequence in, out",
    "lag in, out",
    "came",
    "went",
    "drops",
    "again",
    "round trip",
    "notes",
)


def draw_peers(peers: Sequence[PeerFigures]) -> None:
    """Write what is known of the connections to other clusters."""
    if not peers:
        return
    heading("connections")
    table(
        (
            "kind",
            "cluster",
            "wire",
            "connections",
            "streams",
            "links up",
            "in",
            "out",
            "round trip",
            "jitter",
        ),
        (
            (
                each.kind,
                each.peer,
                each.wires,
                each.connections,
                each.streams,
                each.links,
                _bytes(each.bytes_in),
                _bytes(each.bytes_out),
                _millis(each.round_trip_ms),
                _millis(each.jitter_ms),
            )
            for each in peers
        ),
    )


def draw_links(links: Sequence[LinkFigures]) -> None:
    """Write what is known of links, one a row, and after them how far the events of each origin have come."""
    if not links:
        return
    heading("links")
    table(("kind", "conference", "cluster", *_LINK), (_names(link) + _link(link) for link in links))
    origins = [(link, origin) for link in links for origin in link.origins]
    if origins:
        heading("events by origin")
        table(
            ("conference", "link to", "origin", "incarnation", "had", "told", "hops"),
            (
                (link.conference, link.peer, o.origin, o.incarnation, o.seq, o.told, o.hops)
                for link, o in origins
            ),
        )


def draw_ends(ends: Sequence[LinkEnd]) -> None:
    """Write what was measured at the ends of a conference's links, one a row."""
    if not ends:
        return
    heading("measured at the ends of links")
    table(
        ("at", "kind", "cluster", *_LINK, "told at"),
        (
            (end.cluster, end.figures.kind, _peer(end.figures), *_link(end.figures), end.told_at)
            for end in ends
        ),
    )


def draw_counters(counters: Mapping[str, int], *, of: str) -> None:
    """Write what `of` has refused."""
    if not counters:
        return
    heading(f"refused by {of}")
    facts(counters)


def _names(link: LinkFigures) -> tuple[Any, ...]:
    return (link.kind, link.conference, _peer(link))


def _peer(link: LinkFigures) -> str:
    return f"{'→' if link.role == 'dialer' else '←'} {link.peer}"


def _link(link: LinkFigures) -> tuple[Any, ...]:
    return (
        f"{link.state} since {link.since:%m-%d %H:%M:%S}" if link.since else link.state,
        link.wire,
        f"{link.sequence_in}, {link.sequence_out}",
        f"{link.lag_in}, {link.lag_out}",
        f"{link.messages_in}, {_bytes(link.bytes_in)}",
        f"{link.messages_out}, {_bytes(link.bytes_out)}",
        link.drops,
        link.reconnects,
        _millis(link.round_trip_ms),
        _notes(link),
    )


def _notes(link: LinkFigures) -> str:
    told = {
        "resumed": link.resumes,
        "whole states": link.snapshots,
        "divergences": link.divergences,
        "duplicates": link.duplicates,
        "tracks in": link.tracks_in,
        "tracks out": link.tracks_out,
        "asked for less": link.tracks_slowed,
        "datagrams lost": link.datagrams_lost,
        "sent again": link.datagrams_repeated,
        "parity": link.datagrams_parity,
        "recovered": link.datagrams_recovered,
    }
    notes = [f"{name} {count}" for name, count in told.items() if count]
    if link.lag_ms is not None:
        notes.append(f"oldest waits {_millis(link.lag_ms)}")
    if link.backlog:
        notes.append(f"{_bytes(link.backlog)} under way")
    if link.queued_bytes:
        notes.append(f"{_bytes(link.queued_bytes)} to be sent")
    if link.held_bytes:
        notes.append(f"{_bytes(link.held_bytes)} incomplete")
    if link.internal_bytes:
        notes.append(f"{_bytes(link.internal_bytes)} not taken here")
    if link.error:
        notes.append(link.error if link.state == "down" else f"last: {link.error}")
    return "; ".join(notes)


def _millis(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 10_000:  # noqa: PLR2004 - four digits are still read at a glance
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} TB"
