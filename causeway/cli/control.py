"""`causeway control`: the central service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
from msgspec import structs

from causeway.cli.options import config_option, load_settings
from causeway.telemetry import configure
from control.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


@click.command(name="control")
@config_option
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="TCP port; 0 takes a free one, which is printed. Default: 8400.",
)
@click.option(
    "--state",
    metavar="DIR",
    help="State folder: master key and embedded database. "
    "Default: /var/lib/causeway for root, else ~/.local/state/causeway.",
)
def command(config: Path | None, host: str | None, port: int | None, state: str | None) -> None:
    """Run the central service: registry, joins, cascades.

    Without `database.url` it runs a Postgres of its own below the state folder. At the first start it makes
    one access key of each kind and prints them, once, on standard output. SIGTERM or Ctrl-C stops it.

    \b
        causeway control                            one machine, everything below its state folder
        causeway control --config /etc/causeway.toml

    docs/architecture.md says what it does, configs/causeway.toml what it can be told.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are
    settings = _with_options(load_settings(Settings, config), host=host, port=port, state=state)
    configure(settings.log, process="control")
    # Here, not above: --help and a wrong option need none of it.
    import uvloop  # noqa: PLC0415

    from control.app import serve  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, on_keys=_show_keys, on_listening=_show_address))


def _with_options(settings: Settings, *, host: str | None, port: int | None, state: str | None) -> Settings:
    control = settings.control
    if host is not None:
        control = structs.replace(control, host=host)
    if port is not None:
        control = structs.replace(control, port=port)
    settings = structs.replace(settings, control=control)
    if state is not None:
        settings = structs.replace(settings, state=structs.replace(settings.state, directory=state))
    return settings


def _show_keys(keys: list[str]) -> None:
    click.echo("Access keys, made at this first start. They are shown only now; keep them safe.")
    for text in keys:
        click.echo(f"  {text.split('_')[1]:<12} {text}")
    click.echo("")


def _show_address(host: str, port: int) -> None:
    name = f"[{host}]" if ":" in host else host
    click.echo(f"listening on http://{name}:{port}")
