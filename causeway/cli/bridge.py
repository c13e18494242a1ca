"""`causeway bridge`: the event bridge and the media bridge of one cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Final

import click
from msgspec import structs

from bridges.owt_config import with_owt_config
from bridges.settings import KINDS, Settings
from causeway.cli.bridge_status import command as status
from causeway.cli.options import config_option, load_settings
from causeway.telemetry import configure

__all__ = ["command"]


_WORKER: Final = (sys.executable, "-m", "causeway", "bridge", "worker")


class _Kinds(click.ParamType[tuple[str, ...]]):
    """`event,media`: which bridges to run."""

    name = "kinds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the kinds in the order given, each once."""
        kinds = tuple(dict.fromkeys(kind.strip() for kind in str(value).split(",")))
        for kind in kinds:
            if kind not in KINDS:
                self.fail(f"{kind!r} is no kind of bridge; there are {', '.join(KINDS)}", param, ctx)
        return kinds


@click.group(name="bridge", invoke_without_command=True)
@click.pass_context
@config_option
@click.option("--cluster", metavar="ID", help="The cluster that the bridges belong to.")
@click.option(
    "--node",
    "node_carrier",
    type=click.Choice(["websocket", "amqp"]),
    help="How the cluster is reached: at its node URL, or over OWT's RabbitMQ. Default: websocket.",
)
@click.option(
    "--owt-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The agent.toml of OWT's own bridge, whose place this one takes; with --kinds event or media.",
)
@click.option("--node-url", metavar="URL", help="Where the cluster takes its workers: ws://host:port/node.")
@click.option("--kinds", type=_Kinds(), metavar="KINDS", help="Which bridges to run. Default: event,media.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
@click.option(
    "--advertised-host", metavar="NAME", help="Where others reach this machine. Default: the address above."
)
@click.option(
    "--event-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="UDP port; 0, the default: a free one.",
)
@click.option(
    "--media-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="UDP port; 0, the default: a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    metavar="N",
    help="Processes, each with a part of the conferences; 0: one for each core. Default: 1.",
)
def command(context: click.Context, /, config: Path | None, owt_config: Path | None, **options: Any) -> None:
    """Run the event bridge and the media bridge of one cluster; `status` shows those that run.

    They join the cluster at its node URL with the secret `bridge.node_secret` (file or
    CAUSEWAY_BRIDGE__NODE_SECRET; never an option, as others could see it) and make their certificates at each
    start. SIGTERM or Ctrl-C stops them.

    \b
        causeway bridge --cluster eu-1 --node-url ws://127.0.0.1:8410/node
        causeway bridge --config /etc/causeway.toml --kinds media
        causeway bridge --owt-config /opt/owt/event_bridge/agent.toml --kinds event
        causeway bridge status

    docs/owt.md says how they work inside an OWT cluster, docs/wire.md what they speak, configs/causeway.toml
    what they can be told.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(Settings, config)
    given = {name: value for name, value in options.items() if value is not None}
    configure(settings.log, process="bridge")
    bridge = settings.bridge
    if owt_config is not None:
        bridge = structs.replace(bridge, kinds=given.get("kinds", bridge.kinds))
        bridge = with_owt_config(bridge, owt_config, environ=os.environ)
    bridge = structs.replace(bridge, **given)
    # Here, not above: --help and a wrong option need none of it.
    from bridges import agent, workers  # noqa: PLC0415

    # aioquic's pacing needs a finer clock than uvloop's.
    if workers.count_of(bridge) == 1:
        asyncio.run(agent.run(bridge))
    else:
        asyncio.run(workers.run(structs.replace(settings, bridge=bridge), _WORKER))


@click.command(name="worker", hidden=True)
@click.argument("number", type=int)
def worker(number: int) -> None:
    """Run one of several bridge processes, with the settings that stand on standard input."""
    from bridges.agent import run  # noqa: PLC0415 - as above
    from bridges.workers import received  # noqa: PLC0415 - as above

    settings = received()
    configure(settings.log, process=f"bridge.{number}")
    asyncio.run(run(settings.bridge))


command.add_command(status)
command.add_command(worker)
