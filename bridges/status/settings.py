"""Where a bridge process shows its figures: the table `[bridge.status]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["StatusSettings"]


class StatusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A local endpoint without secrets; `causeway bridge status` reads it."""

    listen: Annotated[str, Meta(max_length=1024)] = "auto"
    """`auto`: a Unix socket in the user's runtime folder, where `causeway bridge status` looks by itself;
    `unix:/path/of/socket`; `http://127.0.0.1:port` (loopback only; port 0: a free one, see the log); or
    `off`."""
    max_clients: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Readers at once; further ones are told to come again."""
    max_age: Annotated[float, Meta(ge=0, le=60)] = 0.5
    """Seconds for which one answer is given again instead of a new one being made."""
    client_timeout: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """Seconds that a reader may take, for its request and the answer together."""
