"""`causeway key`: access keys, and the keys that sign join tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from causeway.api import KeyCreate
from causeway.cli.options import config_option
from causeway.cli.remote import remote_options
from causeway.errors import ConfigError
from causeway.keys import KINDS, SCOPES

if TYPE_CHECKING:
    from pathlib import Path

    from causeway.api import KeyCreated, KeyView
    from causeway.api.tokens import SigningKeyView
    from causeway.cli.remote import Remote
    from causeway.keys import KeyKind, Scope

__all__ = ["command"]


@click.group(name="key")
def command() -> None:
    """Look after access keys. Needs an operator key; `create --local` needs the database instead.

    \b
        causeway key create application --name "the shop" --scope join
        causeway key revoke 1f2e3d4c5b6a
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--name", required=True, metavar="TEXT", help="What the key is for; shown in lists.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What an application key may do; may be repeated. Default: all of it.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Write into the database that --config or --state names, without asking control: for the case that "
    "every operator key is lost.",
)
@click.option("--state", metavar="DIR", help="With --local: state folder with the embedded database.")
@config_option
@remote_options
def create(
    remote: Remote,
    kind: KeyKind,
    name: str,
    scopes: tuple[Scope, ...],
    *,
    local: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Make an access key: for clusters (enrolment), for conferences and joins (application), for everything.

    Its text goes to standard output, once: only a hash of it is kept.
    """
    if not local and (state is not None or config is not None):
        raise ConfigError("--state and --config are for --local; --url says where control is")
    wish = KeyCreate(kind=kind, name=name, scopes=list(scopes) or None)
    if local:
        # Here, not above: it loads the whole of control.
        from causeway.cli import key_actions  # noqa: PLC0415

        made = key_actions.create(config, state, wish)
    else:
        made = remote.run(lambda control: control.create_key(wish))
    remote.show(made, _draw_new)


@command.command(name="list")
@click.option("--kind", type=click.Choice(KINDS), help="Only keys of this kind.")
@click.option("--revoked", is_flag=True, help="Revoked keys, too.")
@remote_options
def list_(remote: Remote, kind: KeyKind | None, *, revoked: bool) -> None:
    """List access keys, oldest first."""
    remote.show(remote.run_all(lambda control: control.each_key(kind=kind, revoked=revoked)), _draw_all)


@command.command()
@click.argument("key")
@remote_options
def revoke(remote: Remote, key: str) -> None:
    """Revoke the access key of this id (12 hex digits), at once and in every replica."""
    remote.run(lambda control: control.revoke_key(key))
    remote.done(f"{key} is revoked")


@command.command(name="rotate-signing")
@remote_options
def rotate_signing(remote: Remote) -> None:
    """Have a new key sign join tokens; tokens signed with the former one stay good until they end."""
    remote.show(remote.run(lambda control: control.rotate_signing_keys()), _draw_signing)


def _draw_new(made: KeyCreated) -> None:
    click.echo(made.key)
    click.echo(f"Key {made.id} ({made.kind}). Its text is shown only now; keep it safe.", err=True)


def _draw_all(keys: list[KeyView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("key", "kind", "name", "scopes", "created", "by", "last used", "revoked"),
        (structs.astuple(key) for key in keys),
    )


def _draw_signing(keys: list[SigningKeyView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - as above

    rows: list[tuple[Any, ...]] = [(key.kid, key.state, key.created_at, key.active_from) for key in keys]
    table(("key", "state", "created", "signs from"), rows)
