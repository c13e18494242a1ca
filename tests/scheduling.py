"""Which tests share a worker of xdist, and so never run at the same time.

Whole laboratories get in each other's way on a small machine, and a broker takes seconds to start: all tests
of such a file, or folder, are one piece of work. Any other test is one by itself. (xdist's own marks for this
are of no effect with pytest 9.2, which has no node ids that a plug-in could add a group to.)
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # it has no types

__all__ = ["Scheduling"]

_TOGETHER: Final = {
    "tests/system/": "whole processes",
    "tests/control/test_bench_joins.py": "whole processes",
    "tests/bridges/test_node_amqp": "broker",
}
"""Beginnings of paths, and the name of the piece of work that tests there belong to."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # as above
    """Gives each worker the next piece of work, the largest ones first."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for path, name in _TOGETHER.items() if nodeid.startswith(path)), nodeid)
