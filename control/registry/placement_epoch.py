"""Which placement it is, of all that a conference has had on a cluster: one number, larger for later ones.

A conference that ends and is made anew, or that leaves a cluster and comes back, has a new placement there,
and with it a new epoch: join tokens of the former one are void. The moment when the row was made does for
that; a room's end and its next beginning are at least a call to the cluster apart.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

__all__ = ["epoch_of", "made_at"]

_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_of(created_at: datetime) -> int:
    """Return the epoch of a placement made at that time: microseconds since 1970."""
    return (created_at - _START) // timedelta(microseconds=1)


@lru_cache(4096)
def made_at(epoch: int) -> datetime:
    """Return when the placement of that epoch was made."""
    return _START + timedelta(microseconds=epoch)
