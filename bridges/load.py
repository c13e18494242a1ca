"""How busy this machine is, for whoever hands out work."""

from __future__ import annotations

import os

__all__ = ["machine_load"]


def machine_load() -> float:
    """Return the processors' load over the last minute, from 0 to 1: all busy, or more than that."""
    return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
