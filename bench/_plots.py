"""Plots of benchmarks: a few panels of bars or curves in one small PNG.

The only place that knows matplotlib, and it is imported when something is drawn: whoever wants no plot does
not need it.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Bars", "Curves", "MissingPlotterError", "draw", "require_plotter"]

_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Okabe and Ito's: told apart by everybody."""
_GREY: Final = "#888888"
_DPI: Final = 80


class MissingPlotterError(Exception):
    """There is no matplotlib; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Groups of bars side by side: a group for each name on the x axis, a bar in it for each series."""

    title: str
    unit: str
    """What the y axis shows."""
    names: Sequence[str]
    series: Mapping[str, Sequence[float]]
    """By name; as many values as there are names. What is not finite goes beyond the top."""
    top: float | None = None
    """Where the y axis ends; None: as the values want it."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Lines across, by what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Points joined by lines."""

    title: str
    unit: str
    across: str
    """What the x axis shows."""
    series: Mapping[str, Sequence[tuple[float, float]]]
    """By name: (x, y) in order of x. What is not finite is left out."""
    limits: Mapping[str, float] = field(default_factory=dict)
    logarithmic: bool = False


def require_plotter() -> None:
    """Raise MissingPlotterError when nothing can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPlotterError("plots need matplotlib: pip install 'causeway[bench]', or say --no-plot")


def draw(path: Path, panels: Sequence[Sequence[Bars | Curves]], *, title: str, wide: float = 11.0) -> None:
    """Draw rows of panels into a PNG, `wide` inches at 80 pixels each. Raises MissingPlotterError."""
    require_plotter()
    from matplotlib.figure import Figure  # noqa: PLC0415 - see the module's docstring
    from PIL import Image  # noqa: PLC0415 - likewise, and it comes with matplotlib

    rows, columns = len(panels), max(len(row) for row in panels)
    longest = max(len(name) for row in panels for panel in row for name in _names(panel))
    tall = 0.6 + rows * (2.4 + 0.035 * longest)
    figure = Figure(figsize=(wide, tall), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    all_axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for panel_row, axes_row in zip(panels, all_axes, strict=True):
        for axes in axes_row[len(panel_row) :]:
            axes.set_visible(False)
        for panel, axes in zip(panel_row, axes_row, strict=False):
            handles |= _bars(axes, panel) if isinstance(panel, Bars) else _curves(axes, panel)
            _dress(axes, panel)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn)
    # A palette halves the file, and leaves out what makes two files of the same figures differ.
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)


def _names(panel: Bars | Curves) -> Sequence[str]:
    return panel.names if isinstance(panel, Bars) else [""]


def _bars(axes: Any, panel: Bars) -> dict[str, Any]:
    handles = {}
    width = 0.8 / len(panel.series)
    top = panel.top or 1.1 * max(
        (value for values in panel.series.values() for value in values if math.isfinite(value)), default=1.0
    )
    for number, (name, values) in enumerate(panel.series.items()):
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(panel.names))]
        heights = [min(value, 1.05 * top) if not math.isnan(value) else 0.0 for value in values]
        handles[name] = axes.bar(places, heights, width, color=_COLOURS[number % len(_COLOURS)])
    axes.set_ylim(0, top)
    axes.set_xticks(range(len(panel.names)), panel.names, rotation=35, ha="right", fontsize=7)
    return handles


def _curves(axes: Any, panel: Curves) -> dict[str, Any]:
    handles = {}
    for number, (name, points) in enumerate(panel.series.items()):
        shown = [(x, y) for x, y in points if math.isfinite(y)]
        colour = _COLOURS[number % len(_COLOURS)]
        (handles[name],) = (
            axes.plot(*zip(*shown, strict=True), color=colour, marker=".") if shown else (None,)
        )
    axes.set_xlabel(panel.across, fontsize=8)
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    return {name: handle for name, handle in handles.items() if handle is not None}


def _dress(axes: Any, panel: Bars | Curves) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_ylabel(panel.unit, fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for name, height in panel.limits.items():
        axes.axhline(height, color=_GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            name, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7
        )
