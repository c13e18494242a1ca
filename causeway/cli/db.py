"""`causeway db`: look after the registry's database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct, field, structs

from causeway.cli.options import config_option, load_settings
from causeway.telemetry import LogSettings, configure
from control.registry.database import (
    Database,
    DatabaseSettings,
    StateSettings,
    migrate,
    newest_revision,
    open_database,
    schema_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["command"]


class _Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: StateSettings = field(default_factory=StateSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    # Quieter than the services: this is a person's command, its answer is on standard output.
    log: LogSettings = field(default_factory=lambda: LogSettings(level="warning"))


@click.group(name="db")
def command() -> None:
    """Look after the database.

    The one that `database.url` names, or without a URL the embedded one below the state folder, which is
    started for the command if no other process runs it.
    """


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
def upgrade(config: Path | None, state: str | None) -> None:
    """Bring the database's schema to the newest revision.

    Run it before control starts with a new release. Control may keep running meanwhile, and several upgrades
    at once do no harm.
    """
    asyncio.run(_with_database(_load(config, state), _upgrade))


@command.command()
@_options
def current(config: Path | None, state: str | None) -> None:
    """Show the schema's revision, and whether it is the newest."""
    asyncio.run(_with_database(_load(config, state), _show))


def _load(config: Path | None, state: str | None) -> _Settings:
    settings = load_settings(_Settings, config)
    if state is not None:
        settings = structs.replace(settings, state=structs.replace(settings.state, directory=state))
    configure(settings.log, process="db")
    return settings


async def _with_database(settings: _Settings, work: Callable[[Database], Any]) -> None:
    async with open_database(settings.database, settings.state) as database:
        await work(database)


async def _upgrade(database: Database) -> None:
    before = await schema_revision(database.engine)
    after = await migrate(database.url)
    click.echo(f"{after} (already the newest)" if before == after else f"{before or 'empty'} -> {after}")


async def _show(database: Database) -> None:
    revision, newest = await schema_revision(database.engine), newest_revision()
    verdict = "the newest" if revision == newest else f"newest is {newest}; run: causeway db upgrade"
    click.echo(f"{revision or 'empty'} ({verdict})")
