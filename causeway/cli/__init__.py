"""The command line: `causeway …`. Stands above everything and imports it lazily, command by command.

`main` is the console script. What it prints about a failure is one line on standard error; the exit code is
2 for a wrong option, setting or file, 1 for anything else that failed on purpose, 130 after Ctrl-C. An
unexpected exception is a defect and shows its trace.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from causeway import __version__
from causeway.errors import CausewayError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "cli", "main"]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class LazyCommand(NamedTuple):
    """Where a sub-command lives, and the line that the list of commands shows for it."""

    target: str
    """`module:attribute` of a click command; imported when the command is used."""
    summary: str


COMMANDS: Final[dict[str, LazyCommand]] = {
    "lab": LazyCommand("causeway.cli.lab:command", "Run regions, bridges and a conference on this machine."),
    "control": LazyCommand("causeway.cli.control:command", "Run the central service."),
    "bridge": LazyCommand("causeway.cli.bridge:command", "Run the event and media bridge of one cluster."),
    "edge": LazyCommand("causeway.cli.edge:command", "Run a cluster that is made of other people's media."),
    "db": LazyCommand("causeway.cli.db:command", "Look after the database: upgrade its schema."),
    "cluster": LazyCommand("causeway.cli.cluster:command", "List, show, drain and block clusters."),
    "agent": LazyCommand("causeway.cli.agent:command", "List, show and drain bridges and recorders."),
    "conference": LazyCommand(
        "causeway.cli.conference:command", "List, show, create, lock, end and explain conferences."
    ),
    "template": LazyCommand("causeway.cli.template:command", "List, show, save and retire templates."),
    "key": LazyCommand("causeway.cli.key:command", "Make, list and revoke access keys."),
    "webhook": LazyCommand(
        "causeway.cli.webhook:command", "Have events sent to your application; replay and test."
    ),
    "region": LazyCommand("causeway.cli.region:command", "List the regions."),
    "replica": LazyCommand("causeway.cli.replica:command", "List the processes of control."),
}
"""In the order in which somebody new meets them."""


class LazyGroup(click.Group):
    """A group that imports a sub-command only when it is used; its list needs no import at all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, None for a name that is not ours."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        if not isinstance(loaded, click.Command):
            raise TypeError(f"{entry.target} is no click command")
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    epilog="Each command explains itself: causeway lab --help. Every setting is described in "
    "configs/causeway.toml; CAUSEWAY_<TABLE>__<KEY> in the environment overrides the file.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="causeway", message="%(prog)s %(version)s")
def cli() -> None:
    """Causeway joins conference clusters in many regions into one conference.

    To see it work, with everything on this machine:

    \b
        causeway lab --for 20

    To run it for real: one `causeway control` beside a Postgres, and one `causeway bridge` beside each
    conference cluster.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process with its code (see the module docstring)."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; unexpected exceptions come through."""
    try:
        result = cli.main(arguments, prog_name="causeway", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        return _complain(_with_hint(error), error.exit_code)
    except ConfigError as error:
        return _complain(str(error), EXIT_USAGE)
    except CausewayError as error:
        return _complain(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    # Without standalone mode click returns what the command returned, and the code of `ctx.exit`.
    return result if isinstance(result, int) else 0


def _complain(message: str, code: int) -> int:
    click.echo(f"causeway: {' '.join(message.split())}", err=True)
    return code


def _with_hint(error: click.ClickException) -> str:
    """Return the error's sentence and, for a wrong call, which help to read."""
    sentence = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{sentence.removesuffix('.')}. Try: {error.ctx.command_path} --help"
    return sentence
