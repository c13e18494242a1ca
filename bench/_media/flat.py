"""Whether something that was measured again and again stays where it is. Pure."""

from __future__ import annotations

from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["growth", "judged"]


def judged(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return the points that count: in the first third everything is used for the first time."""
    return points[len(points) // 3 :]


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the y of (x, y) grows from the first to the last x, fluctuations aside.

    That is the median of the slopes between any two points (Theil and Sen), times the distance; 0 for less
    than two points.
    """
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in combinations(points, 2) if y > x]
    return median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0
