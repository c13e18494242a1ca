"""`causeway edge`: clusters made of other people's media."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from causeway.cli.options import config_option, load_settings
from causeway.telemetry import configure

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


@click.group(name="edge")
def command() -> None:
    """Run a cluster that is made of other people's media; a `causeway bridge` beside it joins it to the rest.

    \b
        causeway edge rtp --config /etc/causeway.toml

    docs/edge.md says how, configs/causeway.toml what they can be told: [lab] is the cluster, [edge] what it
    is made of.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command("rtp")
@config_option
def rtp(config: Path | None) -> None:
    """Take streams from RTP into conferences, and send streams of conferences as RTP.

    `edge.inputs` and `edge.outputs` in the file say which. The application key is best given as
    CAUSEWAY_EDGE__APPLICATION_KEY.
    """
    # Here, not above: --help and a wrong option need none of it.
    from edge.process import run_process  # noqa: PLC0415
    from edge.rtp.service import running_rtp_edge  # noqa: PLC0415
    from edge.settings import Settings  # noqa: PLC0415

    settings = load_settings(Settings, config)
    configure(settings.log, process="edge")
    run_process(running_rtp_edge(settings), stop_timeout=settings.lab.stop_timeout)


@command.command("janus")
@config_option
def janus(config: Path | None) -> None:
    """Have a Janus server take part as a cluster: its VideoRooms are the rooms of conferences.

    `edge.janus` in the file says which server. docs/janus.md has an example.
    """
    from edge.janus.connector import running_connector  # noqa: PLC0415 - as above
    from edge.process import run_process  # noqa: PLC0415
    from edge.settings import Settings  # noqa: PLC0415

    settings = load_settings(Settings, config)
    configure(settings.log, process="edge")
    run_process(running_connector(settings), stop_timeout=settings.lab.stop_timeout)
