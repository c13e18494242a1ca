"""`causeway template`: named room configurations."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from causeway.api import Template
from causeway.cli.remote import remote_options
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from causeway.api import TemplateView
    from causeway.cli.remote import Remote
    from causeway.client import Tagged

__all__ = ["command"]

_MAX_BYTES: Final = 1 << 20


@click.group(name="template")
def command() -> None:
    """Look after templates: how rooms of a type of conference are set up. Changes need an operator key.

    \b
        causeway template list
        causeway template set webinar webinar.toml
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@remote_options
def list_(remote: Remote) -> None:
    """List the templates, each in its newest version."""
    remote.show(remote.run(lambda control: control.list_templates()), _draw_all)


@command.command()
@click.argument("template")
@remote_options
def show(remote: Remote, template: str) -> None:
    """Show a template's newest version, and the ETag for `template set --if-match`."""
    found = remote.run(lambda control: control.get_template(template))
    remote.show(found._asdict(), lambda _: _draw(found))


@command.command(name="set")
@click.argument("template")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--if-match", metavar="ETAG", help="Only if this is still what is there; `*`: if there is any.")
@remote_options
def set_(remote: Remote, template: str, file: Path, if_match: str | None) -> None:
    """Save FILE (TOML or JSON, - for standard input) as the template's new version.

    Conferences that are there keep the version that they were created with.
    """
    wanted = _read(file)
    saved = remote.run(lambda control: control.put_template(template, wanted, if_match=if_match))
    remote.show(saved, lambda view: click.echo(f"{view.name} is at version {view.version}"))


@command.command()
@click.argument("template")
@remote_options
def delete(remote: Remote, template: str) -> None:
    """Let no new conference be of this type; those that are there go on."""
    remote.run(lambda control: control.delete_template(template))
    remote.done(f"{template} takes no new conferences")


def _read(file: Path) -> Template:
    try:
        data = sys.stdin.buffer.read(_MAX_BYTES) if str(file) == "-" else file.read_bytes()[:_MAX_BYTES]
        text = data.decode()
        values = msgspec.json.decode(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        return msgspec.convert(values, Template)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _draw_all(templates: list[TemplateView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("template", "version", "saved", "conferences", "policy", "participants", "sfu only", "regions"),
        (
            (
                each.name,
                each.version,
                each.created_at,
                each.conferences,
                each.template.policy,
                _limit(each.template.participant_limit),
                each.template.sfu_only,
                each.template.residency or "any",
            )
            for each in templates
        ),
    )


def _draw(found: Tagged[TemplateView]) -> None:
    from causeway.cli.tables import facts, heading  # noqa: PLC0415 - as above

    view = found.value
    facts(
        {
            "template": view.name,
            "version": view.version,
            "saved": view.created_at,
            "retired": view.retired_at,
            "conferences": view.conferences,
            "etag": found.tag,
        }
    )
    heading("rooms")
    facts(msgspec.to_builtins(view.template))


def _limit(value: int) -> str:
    return "any" if value < 0 else str(value)
