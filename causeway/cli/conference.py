"""`causeway conference`: look after conferences, and see why clients were sent where they were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import structs

from causeway.api import ConferenceCreate, ConferencePatch, ConferenceQuery
from causeway.cli.conference_events import events, history
from causeway.cli.conference_plan import plan
from causeway.cli.remote import remote_options
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from causeway.api import ConferenceSummary, ConferenceView, DecisionView
    from causeway.cli.remote import Remote

__all__ = ["command"]


@click.group(name="conference")
def command() -> None:
    """Look after conferences. Needs an application key or an operator key.

    \b
        causeway conference list --region eu-west
        causeway conference explain standup
        causeway conference events standup --follow
        causeway conference history standup --at 2026-01-31T12:00
        causeway conference plan standup
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@click.option("--state", type=click.Choice(["active", "ending"]), help="Only those in this state.")
@click.option("--type", "type_", metavar="NAME", help="Only those of this template.")
@click.option("--cluster", metavar="ID", help="Only those placed on this cluster.")
@click.option("--region", metavar="NAME", help="Only those placed in this region.")
@remote_options
def list_(remote: Remote, type_: str | None, **filters: Any) -> None:
    """List conferences, oldest first."""
    query = _checked({**filters, "type": type_}, ConferenceQuery)
    remote.show(remote.run_all(lambda control: control.each_conference(query)), _draw_all)


@command.command()
@click.argument("conference")
@remote_options
def show(remote: Remote, conference: str) -> None:
    """Show a conference with its placements, links, participants and streams."""
    remote.show(remote.run(lambda control: control.get_conference(conference)), _draw)


@command.command()
@click.argument("conference", required=False)
@click.option("--type", "type_", metavar="NAME", help="Template. Default: default.")
@click.option("--metadata", metavar="JSON", help="An object of your own, kept with the conference.")
@click.option("--participant-limit", type=int, metavar="N", help="Participants at once; -1: any number.")
@click.option("--empty-ttl", type=int, metavar="SECONDS", help="Life without participants; -1: for ever.")
@click.option("--locked", is_flag=True, help="Let nobody in for now.")
@remote_options
def create(
    remote: Remote,
    conference: str | None,
    type_: str | None,
    metadata: str | None,
    *,
    locked: bool,
    **rest: Any,
) -> None:
    """Create a conference; without an id control draws one."""
    wish = _checked(
        {
            **rest,
            "id": conference,
            "type": type_,
            "locked": locked or None,
            "metadata": _json(metadata, "--metadata"),
        },
        ConferenceCreate,
    )
    remote.show(remote.run(lambda control: control.create_conference(wish)), _draw)


@command.command()
@click.argument("conference")
@remote_options
def delete(remote: Remote, conference: str) -> None:
    """End a conference: its rooms are removed, everybody is out."""
    remote.run(lambda control: control.delete_conference(conference))
    remote.done(f"{conference} ends")


@command.command()
@click.argument("conference")
@click.option("--last", type=click.IntRange(1), default=1, show_default=True, help="How many decisions.")
@remote_options
def explain(remote: Remote, conference: str, last: int) -> None:
    """Show why clients were sent where they were: clusters considered, left out by what, and scores."""
    decisions = remote.run(lambda control: control.list_decisions(conference))
    remote.show(decisions[:last], _draw_decisions)


@command.command()
@click.argument("conference")
@remote_options
def lock(remote: Remote, conference: str) -> None:
    """Let nobody new in."""
    _set_lock(remote, conference, locked=True)


@command.command()
@click.argument("conference")
@remote_options
def unlock(remote: Remote, conference: str) -> None:
    """Let people in again."""
    _set_lock(remote, conference, locked=False)


command.add_command(plan)
command.add_command(events)
command.add_command(history)


def _set_lock(remote: Remote, conference: str, *, locked: bool) -> None:
    patch = ConferencePatch(locked=locked)
    remote.show(remote.run(lambda control: control.update_conference(conference, patch)), _draw)


def _checked(values: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
    """Return the request made of the options that were given; raises ConfigError if it is not allowed."""
    try:
        return msgspec.convert({name: value for name, value in values.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def _json(text: str | None, name: str) -> Any:
    try:
        return None if text is None else msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: not JSON: {error}") from None


def _draw_all(conferences: list[ConferenceSummary]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("conference", "type", "state", "locked", "participants", "clusters", "created", "metadata"),
        (
            (
                each.id,
                f"{each.type} v{each.template_version}",
                each.state,
                each.locked,
                each.participants,
                each.clusters,
                each.created_at,
                each.metadata,
            )
            for each in conferences
        ),
    )


def _draw(conference: ConferenceView) -> None:
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - as above

    facts(
        {
            "conference": conference.id,
            "type": f"{conference.type} v{conference.template_version}",
            "state": conference.state,
            "locked": conference.locked,
            "created": conference.created_at,
            "participants at most": _limit(conference.participant_limit),
            "life when empty, s": _limit(conference.empty_ttl),
            "empty since": conference.empty_since,
            "ends, if nobody joins": conference.expires_at,
            "metadata": conference.metadata,
        }
    )
    if conference.placements:
        heading("placements")
        table(
            ("#", "cluster", "region", "state", "room", "participants"),
            (
                (p.ordinal, p.cluster, p.region, p.state, p.room, p.participants)
                for p in conference.placements
            ),
        )
    if conference.links:
        heading("links")
        table(
            ("dialer", "listener", "state", "since", "attempts", "error"),
            (structs.astuple(link) for link in conference.links),
        )
    if conference.participants:
        heading("participants")
        table(
            ("participant", "user", "role", "cluster", "joined"),
            ((p.id, p.user, p.role, p.cluster, p.joined_at) for p in conference.participants),
        )
    if conference.streams:
        heading("streams")
        table(
            ("stream", "participant", "cluster", "tracks", "published"),
            (
                (s.id, s.participant, s.cluster, [t.kind for t in s.tracks], s.published_at)
                for s in conference.streams
            ),
        )


def _draw_decisions(decisions: list[DecisionView]) -> None:
    for decision in decisions:
        _draw_decision(decision)
    if not decisions:
        click.echo("no decision is kept for this conference")


def _draw_decision(decision: DecisionView) -> None:
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - as above

    facts(
        {
            "user": decision.user,
            "at": decision.at,
            "sent to": decision.cluster or "nowhere",
            "because": _PLACED[decision.placed] if decision.cluster else "nobody could take the client",
            "client's region": decision.home,
            "policy": decision.policy,
            "considered": decision.considered,
            "heartbeat overdue": decision.suspect,
        }
    )
    if decision.scores:
        scorers = list(dict.fromkeys(name for each in decision.scores for name in each.points))
        heading("scores")
        table(
            ("cluster", "total", *scorers),
            ((s.cluster, s.total, *(s.points.get(name) for name in scorers)) for s in decision.scores),
        )
    if decision.rejections:
        heading("left out")
        table(
            ("filter", "clusters", "why", "for example"),
            ((r.filter, r.count, r.reason, r.clusters) for r in decision.rejections),
        )
    click.echo("")


_PLACED = {
    "region": "it is in the client's region",
    "group": "no cluster in the client's region; this one is in the same group of regions",
    "distance": "no cluster in the client's region; this is the nearest one",
    "any": "nothing is known of where the client is, or nothing is near",
}


def _limit(value: int) -> str:
    return "any" if value < 0 else str(value)
