"""What can be set about signed join tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["TokenSettings"]


class TokenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.tokens]`: join tokens that control signs, for clusters of the kind `causeway`."""

    ttl: Annotated[float, Meta(ge=10, le=3600)] = 300.0
    """Seconds within which a client must show its token at the portal. Default 300."""
    issuer: Annotated[str, Meta(min_length=1, max_length=256)] = "causeway"
    """Claim `iss`. Clusters take tokens of their control's issuer only. Default causeway."""
    lead: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """Seconds from publishing a new key to signing with it; above `refresh_interval` and `max_age`, so that
    every replica and every cluster knows the key first. Default 60."""
    refresh_interval: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    """Seconds between looks for keys that other replicas made. Default 10."""
    max_age: Annotated[int, Meta(ge=0, le=86400)] = 30
    """Seconds that caches may keep `/.well-known/jwks.json`. Default 30."""
