"""The figures of a whole bridge process, put together from those of its parts."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from causeway import __version__
from causeway.api.figures import ProcessFigures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridges.figures import Source
    from causeway.api.figures import ControlFigures

__all__ = ["ProcessSource"]


class _Agent(Protocol):
    def figures(self) -> ControlFigures:
        """Return how the process stands with control."""


class ProcessSource:
    """What is asked for a process's figures. `agent` is None where no control was named."""

    def __init__(self, cluster: str, bridges: Iterable[Source], agent: _Agent | None) -> None:
        self._cluster: Final = cluster
        self._bridges: Final = tuple(bridges)
        self._agent: Final = agent
        self._started_at: Final = datetime.now(UTC)

    def figures(self) -> ProcessFigures:
        """Return everything that is known at this moment."""
        return ProcessFigures(
            cluster=self._cluster,
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            at=datetime.now(UTC),
            bridges=[bridge.figures() for bridge in self._bridges],
            control=None if self._agent is None else self._agent.figures(),
        )
