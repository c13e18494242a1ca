"""The kinds of clusters that there are, and what each can do at all. No I/O: placement and planning read it.

A kind's name is what a cluster registers with (`driver`, causeway.api.clusters); control.fleet makes drivers.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from control.drivers.base import Capabilities, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CAUSEWAY", "KINDS", "OPENVIDU", "OWT", "capabilities"]

OWT: Final = Capabilities(cascade=True, recordings=False, media_nodes=False, reports=True)
CAUSEWAY: Final = Capabilities(
    cascade=True,
    recordings=False,
    media_nodes=False,
    reports=True,
    stops_cascades=True,
    lists_rooms=True,
)
OPENVIDU: Final = Capabilities(
    cascade=False, recordings=True, media_nodes=True, reports=False, room_ids=r"[A-Za-z0-9_-]+"
)

KINDS: Final[Mapping[str, Capabilities]] = MappingProxyType(
    {"owt": OWT, "causeway": CAUSEWAY, "openvidu": OPENVIDU}
)


def capabilities(driver: str) -> Capabilities:
    """Return what clusters of a kind can do; raises NotSupportedError for a kind that there is not."""
    found = KINDS.get(driver)
    if found is None:
        raise NotSupportedError(f"no driver {driver}")
    return found
