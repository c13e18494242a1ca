"""`causeway conference events` and `history`: what happens in a conference, and who was where, and when."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from causeway.api import ConferenceState
from causeway.cli.remote import remote_options
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from causeway.api import ConferenceEvent
    from causeway.cli.remote import Remote
    from causeway.client import ControlClient

__all__ = ["events", "history"]


@click.command()
@click.argument("conference")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Only events after this number.")
@click.option("--follow", is_flag=True, help="Go on with what happens, until the conference ends.")
@remote_options
def events(remote: Remote, conference: str, after: int | None, *, follow: bool) -> None:
    """Show what has happened in a conference; with --follow, what happens.

    Following begins with the conference as it is, or after --after. With --json it writes an object a line.
    """
    if follow:
        remote.run(lambda control: _follow(control, conference, after, as_json=remote.as_json))
        return
    remote.show(remote.run_all(lambda control: _all(control, conference, after)), _draw_events)


@click.command()
@click.argument("conference")
@click.option("--at", metavar="TIME", help="ISO 8601; without an offset from UTC local time. Default: now.")
@remote_options
def history(remote: Remote, conference: str, at: str | None) -> None:
    """Show who was where in a conference at some time, and what served it."""
    time = None if at is None else _time(at)
    remote.show(remote.run(lambda control: control.get_history(conference, time)), _draw_state)


async def _all(control: ControlClient, conference: str, after: int | None) -> AsyncIterator[ConferenceEvent]:
    while True:
        page = await control.list_events(conference, after=after, limit=1000)
        for event in page.events:
            yield event
        if not page.more:
            return
        after = page.next


async def _follow(control: ControlClient, conference: str, after: int | None, *, as_json: bool) -> None:
    async for told in control.follow_events(conference, after=after):
        if as_json:
            click.echo(msgspec.json.encode(told))
        elif isinstance(told, ConferenceState):
            _draw_state(told)
            click.echo("")
        else:
            _draw_event(told)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(f"--at: not a time: {text}") from None


def _draw_event(event: ConferenceEvent) -> None:
    from causeway.cli.tables import words  # noqa: PLC0415 - rich; --help shall not wait for it

    click.echo(f"{event.seq:>6}  {words(event.at)}  {words(event.kind):<20}  {words(_body(event))}")


def _draw_events(found: list[ConferenceEvent]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - as above

    table(("#", "at", "event", "of"), ((each.seq, each.at, each.kind, _body(each)) for each in found))


def _body(event: ConferenceEvent) -> dict[str, Any]:
    """Return what an event is about, with the tracks of a stream by their kinds."""
    tracks = event.body.get("tracks")
    if not isinstance(tracks, list):
        return event.body
    return event.body | {"tracks": [each.get("kind") for each in tracks if isinstance(each, dict)]}


def _draw_state(state: ConferenceState) -> None:
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - as above

    facts(
        {
            "conference": state.conference,
            "after event": f"{state.seq} of {state.at:%Y-%m-%d %H:%M:%S}",
            "state": state.state,
            "type": f"{state.type} v{state.template_version}",
            "locked": state.locked,
            "metadata": state.metadata,
        }
    )
    if state.participants:
        heading("participants")
        table(
            ("participant", "user", "role", "cluster", "joined"),
            ((p.id, p.user, p.role, p.cluster, p.joined_at) for p in state.participants),
        )
    if state.streams:
        heading("streams")
        table(
            ("stream", "participant", "cluster", "tracks", "published"),
            (
                (s.id, s.participant, s.cluster, [t.kind for t in s.tracks], s.published_at)
                for s in state.streams
            ),
        )
    if state.placements:
        heading("placements")
        table(
            ("#", "cluster", "region", "state", "since"),
            ((p.ordinal, p.cluster, p.region, p.state, p.since) for p in state.placements),
        )
    if state.links:
        heading("links")
        table(
            ("dialer", "listener", "state", "since"),
            ((link.dialer, link.listener, link.state, link.since) for link in state.links),
        )
