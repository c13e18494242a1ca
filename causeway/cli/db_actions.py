"""What the `causeway db` commands do; apart from the commands, because it loads SQLAlchemy and Alembic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import click
from msgspec import Struct, field, structs

from causeway.cli.options import load_settings
from causeway.telemetry import LogSettings, configure
from control.registry.database import (
    Database,
    DatabaseSettings,
    StateSettings,
    migrate,
    newest_revision,
    open_database,
    pending,
    schema_revision,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from control.registry.schema import Step

__all__ = ["current", "on_database", "upgrade"]

T = TypeVar("T")


class _Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: StateSettings = field(default_factory=StateSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    # Quieter than the services: this is a person's command, its answer is on standard output.
    log: LogSettings = field(default_factory=lambda: LogSettings(level="warning"))


def upgrade(config: Path | None, state: str | None, *, dry_run: bool) -> None:
    """Migrate the configured database, and print each migration and how long it took.

    `dry_run`: print what would be done, with its SQL, and do nothing.
    """

    async def work(database: Database) -> None:
        before = await schema_revision(database.engine)
        steps = {step.revision: step for step in pending(before)}
        if dry_run:
            for step in steps.values():
                click.echo(f"-- {_line(step)}\n{step.statements.strip()}\n")
            click.echo(f"-- {len(steps)} to do; nothing was changed")
            return
        after = await migrate(
            database.url,
            on_step=lambda revision, seconds: click.echo(f"{_line(steps[revision])} ({seconds:.2f} s)"),
        )
        click.echo(f"{after} (already the newest)" if before == after else f"{before or 'empty'} -> {after}")

    on_database(config, state, work)


def _line(step: Step) -> str:
    kind = "expands" if step.contract is None else f"contracts: programs must know {step.contract}"
    return f"{step.revision} {step.title} [{kind}]"


def current(config: Path | None, state: str | None) -> None:
    """Print the configured database's revision and whether it is the newest."""

    async def work(database: Database) -> None:
        revision, newest = await schema_revision(database.engine), newest_revision()
        verdict = "the newest" if revision == newest else f"newest is {newest}; run: causeway db upgrade"
        click.echo(f"{revision or 'empty'} ({verdict})")

    on_database(config, state, work)


def on_database(config: Path | None, state: str | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """Return what `work` makes of the database that settings and `--state` name."""
    settings = load_settings(_Settings, config)
    if state is not None:
        settings = structs.replace(settings, state=structs.replace(settings.state, directory=state))
    configure(settings.log, process="db")

    async def main() -> T:
        async with open_database(settings.database, settings.state) as database:
            return await work(database)

    return asyncio.run(main())
