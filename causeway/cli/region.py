"""`causeway region`: where clusters are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api import RegionView
    from causeway.cli.remote import Remote

__all__ = ["command"]


@click.group(name="region")
def command() -> None:
    """See the regions, with what clients measure their latency to them with.

    \b
        causeway region list --json
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@remote_options
def list_(remote: Remote) -> None:
    """List the regions: configured ones, and those that clusters name."""
    remote.show(remote.run(lambda control: control.list_regions()), _draw_all)


def _draw_all(regions: list[RegionView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("region", "clusters", "groups", "location", "ping"),
        (
            (
                each.name,
                each.clusters,
                each.groups,
                None if each.location is None else to_builtins(each.location),
                each.ping_urls,
            )
            for each in regions
        ),
    )
