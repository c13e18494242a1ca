"""How commands draw what they show: tables, and the facts of one thing. Knows no command.

Texts come from other people (names of users, reasons, labels): what is not printable is shown as its escape,
so that nobody writes control sequences into an operator's terminal.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

__all__ = ["facts", "heading", "table", "words"]

_UNBOUNDED: Final = 10_000
"""Columns of an output that is no terminal: nothing is cut off, so that it can be searched."""
_NONE: Final = "–"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows under headers; nothing but the headers where there are no rows."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(_text(cell) for cell in row))
    _print(drawn)


def facts(values: Mapping[str, Any]) -> None:
    """Write names and values, one a line."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        drawn.add_row(name, _text(value))
    _print(drawn)


def heading(title: str) -> None:
    """Write a title, with an empty line before it."""
    _print(Text(f"\n{title}", style="bold"))


def _text(value: Any) -> Text:
    return Text(words(value))


def words(value: Any) -> str:
    """Return a value as text of printable characters, on one line."""
    if isinstance(value, dict):
        text = ", ".join(f"{words(name)}={words(each)}" for name, each in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(words(each) for each in value)
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S}"
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = "" if value is None else str(value)
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text) or _NONE


def _print(drawn: RenderableType) -> None:
    width = None if sys.stdout.isatty() else _UNBOUNDED
    console = Console(width=width, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(drawn)
    # Cells are filled up with spaces to the widest one of their column, also in the last column.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
