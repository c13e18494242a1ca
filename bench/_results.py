"""What a benchmark leaves behind: its table on standard output and as Markdown, its plots as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench._plots import MissingPlotterError, draw, require_plotter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bench._plots import Bars, Curves

__all__ = ["Results"]

_DEFAULT: Final = Path("build/bench")


class Results:
    """The files of one benchmark: `<name>.md` and `<name>.png`, or `<name>-<part>.…`."""

    def __init__(self, name: str, directory: Path, *, plots: bool) -> None:
        self._name = name
        self._directory = directory
        self._plots = plots

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        """Add the options that say what is written, and where."""
        parser.add_argument(
            "--out", type=Path, default=_DEFAULT, metavar="DIR", help=f"for table and plot ({_DEFAULT})"
        )
        parser.add_argument("--no-plot", action="store_true", help="draw nothing; no matplotlib is needed")

    @classmethod
    def of(cls, name: str, parser: argparse.ArgumentParser, given: argparse.Namespace) -> Results:
        """Return where the results go; ends the program with one line when plots cannot be drawn."""
        if not given.no_plot:
            try:
                require_plotter()
            except MissingPlotterError as error:
                parser.exit(2, f"{parser.prog}: {error}\n")
        return cls(name, given.out, plots=not given.no_plot)

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], *, part: str = "", text: int = 1
    ) -> None:
        """Print a table and write it as Markdown; the first columns are `text`, the others figures."""
        lines = [head, ["---"] * text + ["---:"] * (len(head) - text), *rows]
        widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
        print(f"\n{part}" if part else "")
        for line in (head, *rows):
            cells = [
                cell.ljust(width) if column < text else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip(), flush=True)
        path = self._path(part, "md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")

    def draw(self, panels: Sequence[Sequence[Bars | Curves]], *, title: str, part: str = "") -> None:
        """Draw rows of panels."""
        if self._plots:
            draw(self._path(part, "png"), panels, title=title)

    def _path(self, part: str, suffix: str) -> Path:
        return self._directory / f"{self._name}{part and f'-{part}'}.{suffix}"
