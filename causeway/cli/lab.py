"""`causeway lab`: everything on this machine, to see it work. What it does is in lab.launcher.laboratory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final, Literal

import click

from causeway.errors import ConfigError

__all__ = ["command"]

_EXTRA: Final = ("av", "numpy")
"""What the extra `lab` brings: without them there is nothing to encode and decode pictures with."""


@click.command("lab", short_help="Run regions, bridges and a conference on this machine.")
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="End by itself, this long after the last participant has joined, and say whether it worked. "
    "Without it the laboratory runs until Ctrl-C.",
)
@click.option(
    "--regions",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    metavar="N",
    help="How many regions; each has a cluster, a bridge and a participant.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8400,
    show_default=True,
    help="Where control listens; every other port is a free one.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep Postgres' data, settings, logs and pids.json here. Without it they go to a temporary "
    "directory and are removed at the end.",
)
@click.option(
    "--media",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Publish this file's pictures and sound, again and again, instead of generated ones. The frame "
    "number is burnt in either way.",
)
@click.option(
    "--fps",
    type=click.IntRange(1, 60),
    default=25,
    show_default=True,
    help="Pictures a second that are published.",
)
@click.option(
    "--agents/--no-agents",
    default=True,
    show_default=True,
    help="Whether the bridges are agents, which take control's orders themselves, or get them through "
    "their cluster.",
)
@click.option(
    "--topology",
    type=click.Choice(["mesh", "tree", "star"]),
    default="mesh",
    show_default=True,
    help="Which clusters are linked: every pair, or the others by way of the second region's, which passes "
    "on what it receives. A tree or a star needs agents.",
)
def command(
    *,
    seconds: float | None,
    regions: int,
    port: int,
    state: Path | None,
    media: Path | None,
    fps: int,
    agents: bool,
    topology: Literal["mesh", "tree", "star"],
) -> int:
    """Run several regions and one conference on this machine.

    Starts control with its own Postgres, and for each region a small conference cluster, its bridge and one
    participant, all as separate processes. Every participant joins through control's public API. The one in
    the first region publishes VP8 pictures and Opus sound; the others receive them across the bridges and
    decode them. A table shows what goes on; the end is a summary.

    \b
        causeway lab                        until Ctrl-C
        causeway lab --for 20               20 seconds, then a verdict
        causeway lab --regions 3 --state ./lab-state

    The exit code is 0 only if pictures were decoded in every other region and the number in each of them is
    one that was sent; 1 if not, or if a part could not be started; 2 for a wrong option.

    Try it: while it runs, kill a bridge (pids.json in the state directory has the process ids) and watch it
    come back. docs/architecture.md explains what you see.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the laboratory needs {' and '.join(missing)}, which the extra `lab` brings: "
            "pip install 'causeway[lab]'"
        )
    if not sys.platform.startswith("linux"):
        raise ConfigError("the laboratory needs Linux: its processes are leashed by the kernel")
    # Heavy, and only now known to be there.
    from lab.launcher.laboratory import Options, run  # noqa: PLC0415
    from lab.launcher.supervisor import ChildFailedError  # noqa: PLC0415

    try:
        return run(
            Options(
                seconds=seconds,
                regions=regions,
                port=port,
                state=state,
                media=media,
                fps=fps,
                agents=agents,
                topology=topology,
            )
        )
    except ChildFailedError as error:
        if error.tail:
            click.echo(f"{error.tail}\n(the end of its log)", err=True)
        raise
