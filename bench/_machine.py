"""What every benchmark ends with: one line of JSON on standard output, with the machine that it ran on."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["machine", "report"]


def machine() -> dict[str, Any]:
    """Return what the figures depend on: cores, Python, system and how busy the machine is."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1m": round(os.getloadavg()[0], 2),
    }


def report(bench: str, figures: Mapping[str, float]) -> None:
    """Print the last line of a benchmark: `figures` by name, rounded to four significant digits."""
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"bench": bench, "figures": rounded, "machine": machine()}), flush=True)
