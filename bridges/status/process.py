"""The figures of a whole bridge process, put together from those of its parts."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import structs

from causeway import __version__
from causeway.api.figures import ProcessFigures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridges.figures import BridgeFigures, Source
    from causeway.api.figures import ControlFigures, LinkFigures

__all__ = ["ProcessSource"]

_BATCH: Final = 50


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

    async def figures(self) -> ProcessFigures:
        """Return everything that is known. With thousands of links others work in between."""
        return ProcessFigures(
            cluster=self._cluster,
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            at=datetime.now(UTC),
            bridges=[await _gather(bridge) for bridge in self._bridges],
            control=None if self._agent is None else self._agent.figures(),
        )


async def _gather(source: Source) -> BridgeFigures:
    keys = source.link_keys()
    links: list[LinkFigures] = []
    for start in range(0, len(keys), _BATCH):
        links += source.link_figures(keys[start : start + _BATCH])
        await asyncio.sleep(0)  # The bridge's own work goes on.
    return structs.replace(source.overview(), links=links)
