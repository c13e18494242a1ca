"""Shorter pauses of Python's collector of reference cycles, for a process that has milliseconds to lose.

A full collection goes through all objects that there are, most of them modules, classes and code that never
change: tens of milliseconds, in which nothing is received or sent. It knows nothing of what the process does.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["shorten_pauses"]

_THRESHOLDS: Final = (20_000, 20, 20)
"""Objects more than before until the youngest are looked through, and how often that is until the next older
generation is. Python's own are 700, 10 and 10: with frames coming and going they make for hundreds of
collections a second that find nothing."""


def shorten_pauses() -> None:
    """Leave what there is now, which stays, out of all collections to come, and collect more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
