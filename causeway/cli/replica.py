"""`causeway replica`: the processes of control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api import ReplicaView
    from causeway.cli.remote import Remote

__all__ = ["command"]


@click.group(name="replica")
def command() -> None:
    """See the processes of control that share the database, and which of them does what.

    \b
        causeway replica list --json
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@remote_options
def list_(remote: Remote) -> None:
    """List the replicas that are there, and those that were lately."""
    remote.show(remote.run(lambda control: control.list_replicas()), _draw_all)


def _draw_all(replicas: list[ReplicaView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("name", "state", "version", "schema", "started", "last seen", "conferences", "duties", "id"),
        (
            (
                each.name,
                each.state,
                each.version,
                each.revision,
                each.started_at,
                each.last_seen_at,
                each.conferences,
                each.duties,
                each.id,
            )
            for each in replicas
        ),
    )
