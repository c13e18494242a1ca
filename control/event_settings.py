"""`[control.events]`: how long events are kept, and the streams of them that clients read."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["EventSettings"]

Seconds = Annotated[float, Meta(ge=0.05, le=3600)]


class EventSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.events]`."""

    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    """Days (UTC) that events are kept; what a conference was longer ago cannot be told. Default 30."""
    days_ahead: Annotated[int, Meta(ge=1, le=365)] = 7
    """Days for which the log's partitions are made in advance. Default 7."""
    upkeep_interval: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    """Seconds between looks for partitions to make and to drop. Default 600."""
    public_url: Annotated[str, Meta(pattern=r"^(https?://[^\s?#]+)?$(?!\n)", max_length=2048)] = ""
    """Where clients reach this API, without `/v1`; leads the URL of events that a join answers. Default: the
    address that the join came to."""
    token_ttl: Annotated[int, Meta(ge=60, le=86_400)] = 21_600
    """Seconds for which the token in that URL is good. Default 6 hours."""
    allow_origin: Annotated[str, Meta(pattern=r"^[!-~]*$(?!\n)", max_length=2048)] = "*"
    """Web pages of which origin may read events (Access-Control-Allow-Origin); no cookie is involved.
    Empty: none of another one than the API's. Default: any."""
    max_streams: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Event streams open at once in this process, beyond control.http.max_requests but within
    control.http.max_connections; further ones are answered 503. Default 1,000."""
    stream_life: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0
    """Seconds after which a stream ends; its reader comes again, shows its key or token again, and goes on
    where it was. Default 3,600."""
    heartbeat: Seconds = 15.0
    """Seconds of silence after which a stream carries a comment, so that nobody on the way takes it for dead.
    Default 15."""
    send_timeout: Annotated[float, Meta(gt=0, le=600)] = 30.0
    """Seconds that a reader may take nothing; then the connection is cut. Default 30."""
    poll_interval: Seconds = 2.0
    """Seconds between looks for new events when no notice comes. Default 2."""
    buffer: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Newest events of a conference kept in memory while it has readers; a slower one reads the database.
    Default 256."""
