"""`causeway db`: look after the registry's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from causeway.cli.options import config_option

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["command"]


@click.group(name="db")
def command() -> None:
    """Look after the database.

    The one that `database.url` names, or without a URL the embedded one below the state folder, which is
    started for the command if no other process runs it.

    \b
        causeway db upgrade --config /etc/causeway.toml
        causeway db current
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


def _options(function: Callable[..., None]) -> Callable[..., None]:
    state = click.option(
        "--state",
        metavar="DIR",
        help="State folder, where the embedded database lives. "
        "Default: /var/lib/causeway for root, else ~/.local/state/causeway.",
    )
    return config_option(state(function))


@command.command()
@_options
@click.option("--dry-run", is_flag=True, help="Show what would be done, as SQL, and do nothing.")
def upgrade(config: Path | None, state: str | None, *, dry_run: bool) -> None:
    """Bring the database's schema to the newest revision, and say what is done.

    Run it before control starts with a new release. Control of the previous release may keep running
    meanwhile and afterwards, and several upgrades at once do no harm. docs/migrations.md has the rules.
    """
    from causeway.cli import db_actions  # noqa: PLC0415 - heavy; nobody's --help shall wait for it

    db_actions.upgrade(config, state, dry_run=dry_run)


@command.command()
@_options
def current(config: Path | None, state: str | None) -> None:
    """Show the schema's revision, and whether it is the newest."""
    from causeway.cli import db_actions  # noqa: PLC0415 - as above

    db_actions.current(config, state)
