"""`causeway webhook`: where events go, and what became of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
import msgspec

from causeway.api import (
    DeliveryState,
    ReplayRequest,
    WebhookCreate,
    WebhookPatch,
)
from causeway.cli.remote import remote_options
from causeway.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from causeway.api import (
        DeliveryView,
        WebhookCreated,
        WebhookSecret,
        WebhookTest,
        WebhookView,
    )
    from causeway.cli.remote import Remote

__all__ = ["command"]

T = TypeVar("T", bound=msgspec.Struct)


@click.group(name="webhook")
def command() -> None:
    """Have events of conferences sent to your application. Needs an operator key.

    \b
        causeway webhook create https://example.com/hook --event 'participant.*'
        causeway webhook test wh_0123456789abcdef
        causeway webhook deliveries wh_0123456789abcdef --state dead
        causeway webhook replay wh_0123456789abcdef --dead --hours 24
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which events a webhook gets."""
    for option in (
        click.option(
            "--metadata",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only of conferences with this in their metadata; VALUE: JSON or text. May be repeated.",
        ),
        click.option(
            "--type",
            "types",
            multiple=True,
            metavar="TEMPLATE",
            help="Only of conferences of this type; may be repeated.",
        ),
        click.option(
            "--event",
            "events",
            multiple=True,
            metavar="KIND",
            help="Only events of this kind, or `participant.*` and the like; may be repeated.",
        ),
    ):
        function = option(function)
    return function


# --- webhooks ---------------------------------------------------------------------------------


@command.command()
@click.argument("address", metavar="ADDRESS")
@_filters
@click.option("--description", default="", metavar="TEXT", help="What it is for; shown in lists.")
@click.option("--disabled", is_flag=True, help="Do not deliver yet.")
@remote_options
def create(
    remote: Remote,
    address: str,
    *,
    events: tuple[str, ...],
    types: tuple[str, ...],
    metadata: tuple[str, ...],
    description: str,
    disabled: bool,
) -> None:
    """Have events sent to ADDRESS, an https:// URL. Their secret goes to standard output, once."""
    wish = _wish(
        WebhookCreate,
        url=address,
        events=list(events),
        types=list(types),
        metadata=_metadata(metadata),
        description=description,
        enabled=not disabled,
    )
    remote.show(remote.run(lambda control: control.create_webhook(wish)), _draw_new)


@command.command(name="list")
@remote_options
def list_(remote: Remote) -> None:
    """List the webhooks, oldest first."""
    remote.show(remote.run(lambda control: control.list_webhooks()), _draw_all)


@command.command()
@click.argument("webhook")
@remote_options
def show(remote: Remote, webhook: str) -> None:
    """Show a webhook, and how it is doing."""
    remote.show(remote.run(lambda control: control.get_webhook(webhook)).value, _draw)


@command.command(name="set")
@click.argument("webhook")
@click.option("--address", metavar="URL", help="Where messages go from now on.")
@_filters
@click.option("--all-events", is_flag=True, help="Events of all kinds.")
@click.option("--all-conferences", is_flag=True, help="Conferences of any type and metadata.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@remote_options
def set_(
    remote: Remote,
    webhook: str,
    *,
    address: str | None,
    events: tuple[str, ...],
    types: tuple[str, ...],
    metadata: tuple[str, ...],
    description: str | None,
    all_events: bool,
    all_conferences: bool,
) -> None:
    """Change a webhook; what is not named stays as it is, a filter that is named replaces the former one."""
    if (all_events and events) or (all_conferences and (types or metadata)):
        raise ConfigError(
            "--all-events goes without --event, --all-conferences without --type and --metadata"
        )
    given: dict[str, Any] = {}
    if address is not None:
        given["url"] = address
    if events or all_events:
        given["events"] = list(events)
    if types or all_conferences:
        given["types"] = list(types)
    if metadata or all_conferences:
        given["metadata"] = _metadata(metadata)
    if description is not None:
        given["description"] = description
    if not given:
        raise ConfigError("nothing to change: name at least one option")
    patch = _wish(WebhookPatch, **given)
    remote.show(remote.run(lambda control: control.update_webhook(webhook, patch)), _draw)


@command.command()
@click.argument("webhook")
@remote_options
def enable(remote: Remote, webhook: str) -> None:
    """Deliver (again): its failures are forgotten, and what waits is due at once."""
    remote.run(lambda control: control.update_webhook(webhook, WebhookPatch(enabled=True)))
    remote.done(f"{webhook} is enabled")


@command.command()
@click.argument("webhook")
@remote_options
def disable(remote: Remote, webhook: str) -> None:
    """Deliver nothing more; what happens meanwhile can be replayed later."""
    remote.run(lambda control: control.update_webhook(webhook, WebhookPatch(enabled=False)))
    remote.done(f"{webhook} is disabled")


@command.command()
@click.argument("webhook")
@remote_options
def delete(remote: Remote, webhook: str) -> None:
    """Delete a webhook with everything that waits for it."""
    remote.run(lambda control: control.delete_webhook(webhook))
    remote.done(f"{webhook} is deleted")


@command.command(name="rotate-secret")
@click.argument("webhook")
@click.option(
    "--keep",
    type=click.IntRange(0, 604_800),
    metavar="SECONDS",
    help="How long messages are signed with the former secret, too. Default: a day.",
)
@remote_options
def rotate_secret(remote: Remote, webhook: str, keep: int | None) -> None:
    """Replace the secret. The new one goes to standard output, once."""
    made = remote.run(lambda control: control.rotate_webhook_secret(webhook, keep=keep))
    remote.show(made, _draw_secret)


@command.command()
@click.argument("webhook")
@remote_options
def test(remote: Remote, webhook: str) -> None:
    """Send a test message now and tell what came of it; exit code 1 if it was not taken."""
    told = remote.run(lambda control: control.test_webhook(webhook))
    remote.show(told, _draw_test)
    if not told.taken:
        raise UnavailableError(f"the test message was not taken: {told.error}")


# --- messages ---------------------------------------------------------------------------------


@command.command()
@click.argument("webhook")
@click.option("--state", type=click.Choice(get_args(DeliveryState)), help="Only messages in this state.")
@click.option("--conference", metavar="ID", help="Only of this conference.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@remote_options
def deliveries(
    remote: Remote, webhook: str, state: DeliveryState | None, conference: str | None, limit: int
) -> None:
    """List messages and what became of them, newest events first."""
    found = remote.run(
        lambda control: control.list_deliveries(webhook, state=state, conference=conference, limit=limit)
    )
    remote.show(found, _draw_deliveries)


@command.command()
@click.argument("webhook")
@click.option("--message", metavar="ID", help="Only this one.")
@click.option("--after", metavar="TIME", help="What happened from then (RFC 3339: 2026-01-31T12:00:00Z) …")
@click.option("--before", metavar="TIME", help="… until then. Default: now.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True, max=87_600),
    help="Instead of --after: what happened in the last hours.",
)
@click.option("--dead", is_flag=True, help="Only messages that were given up.")
@remote_options
def replay(
    remote: Remote,
    webhook: str,
    *,
    message: str | None,
    after: str | None,
    before: str | None,
    hours: float | None,
    dead: bool,
) -> None:
    """Deliver again: one message, or what happened in a time, whether it was delivered or not."""
    if message is not None:
        if after or before or hours or dead:
            raise ConfigError("--message goes without any other option")
        view = remote.run(lambda control: control.replay_delivery(webhook, message))
        remote.show(view, lambda _: click.echo(f"{message} is queued"))
        return
    if (after is None) == (hours is None):
        raise ConfigError("name --message, --after or --hours")
    end = datetime.now(UTC) if before is None else _time(before, "--before")
    start = _time(after, "--after") if hours is None else datetime.now(UTC) - timedelta(hours=hours)
    request = _wish(ReplayRequest, after=start, before=end, dead_only=dead)
    queued = remote.run(lambda control: control.replay_deliveries(webhook, request))
    remote.show({"queued": queued}, lambda _: click.echo(f"{queued} messages are queued"))


# --- what was given ---------------------------------------------------------------------------


def _wish(kind: type[T], **values: Any) -> T:
    """Make a request of options; raises ConfigError for what control would refuse."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def _metadata(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--metadata {pair}: must be KEY=VALUE")
        try:
            found[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[key] = value
    return found


def _time(text: str | None, option: str) -> datetime:
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise ConfigError(f"{option}: must be a time like 2026-01-31T12:00:00Z") from None


# --- what is shown ----------------------------------------------------------------------------


def _draw_new(made: WebhookCreated) -> None:
    click.echo(made.secret)
    click.echo(f"Webhook {made.id}. Its secret is shown only now; keep it safe.", err=True)


def _draw_secret(made: WebhookSecret) -> None:
    click.echo(made.secret)
    until = made.previous_secret_until
    former = "is not used any more" if until is None else f"signs, too, until {until:%Y-%m-%d %H:%M:%S}"
    click.echo(f"Shown only now; keep it safe. The former one {former}.", err=True)


def _draw_all(webhooks: list[WebhookView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("webhook", "url", "events", "state", "waiting", "dead", "last success", "description"),
        (
            (
                each.id,
                each.url,
                ", ".join(each.events) or "all",
                _state(each),
                each.waiting,
                each.dead,
                each.last_success_at,
                each.description,
            )
            for each in webhooks
        ),
    )


def _draw(webhook: WebhookView) -> None:
    from causeway.cli.tables import facts  # noqa: PLC0415 - as above

    facts(
        {
            "webhook": webhook.id,
            "url": webhook.url,
            "description": webhook.description,
            "events": ", ".join(webhook.events) or "all",
            "of types": ", ".join(webhook.types) or "any",
            "with metadata": webhook.metadata or "any",
            "state": _state(webhook),
            "waiting": webhook.waiting,
            "dead": webhook.dead,
            "failures": webhook.failures,
            "failing since": webhook.failing_since,
            "paused until": webhook.paused_until,
            "last success": webhook.last_success_at,
            "last failure": webhook.last_failure_at,
            "last error": webhook.last_error,
            "former secret until": webhook.previous_secret_until,
            "created": webhook.created_at,
            "by": webhook.created_by,
        }
    )


def _draw_test(told: WebhookTest) -> None:
    if told.taken:
        click.echo(f"taken with {told.status} in {told.seconds:g} s ({told.message})")


def _draw_deliveries(found: list[DeliveryView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - as above

    table(
        ("message", "conference", "seq", "kind", "at", "state", "tries", "status", "due", "error"),
        (
            (
                each.id,
                each.conference,
                each.seq,
                each.kind,
                each.at,
                each.state,
                each.tries,
                each.status,
                each.due_at,
                each.error,
            )
            for each in found
        ),
    )


def _state(webhook: WebhookView) -> str:
    if not webhook.enabled:
        return f"disabled ({webhook.disabled_reason})"
    return {"closed": "ok", "open": "paused", "half-open": "being tried"}[webhook.circuit]
