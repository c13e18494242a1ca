"""What `[control.webhooks]` may say."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["WebhookSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
LongSeconds = Annotated[float, Meta(gt=0, le=30 * 86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Network = Annotated[str, Meta(min_length=1, max_length=64)]


class WebhookSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.webhooks]`: events of conferences, delivered to applications (docs/webhooks.md)."""

    allow_networks: tuple[Network, ...] = ()
    """Networks (10.0.0.0/8, fd00::/8) whose addresses webhooks may go to although they are not public.
    Default: none."""
    allow_http: bool = False
    """Take http:// URLs, too: messages are signed, but not secret then. Default off."""
    max_webhooks: Annotated[int, Meta(ge=0, le=10_000)] = 100
    """Webhooks there may be; every event is held against each of them. Default 100."""
    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 15.0
    """Seconds that a receiver gets to answer, with everything. Default 15."""
    connect_timeout: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    """Seconds of these for finding and reaching it. Default 5."""
    max_at_once: Count = 64
    """Messages sent at the same time by this process. Default 64."""
    max_per_webhook: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Messages sent at the same time to one webhook, by all processes together; those of one conference go
    one after the other. Default 8."""
    poll_interval: Seconds = 1.0
    """Seconds between looks for due messages when no notice comes. Default 1."""
    retry_base: Seconds = 5.0
    """Seconds, about, before the first retry of a message; four times that before the next one, and so on.
    Default 5."""
    retry_cap: LongSeconds = 21_600.0
    """Seconds, about, between retries at most. Default 21,600 (6 hours)."""
    give_up: LongSeconds = 259_200.0
    """Seconds after which a message that was not taken is a dead letter. Default 259,200 (3 days)."""
    failures_to_pause: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Failures in a row after which a webhook is left alone for a while. Default 5."""
    pause_base: Seconds = 5.0
    """Seconds, about, of the first such pause; each one doubles the next. Default 5."""
    pause_cap: Seconds = 600.0
    """Seconds, about, of a pause at most. Default 600."""
    disable_after: LongSeconds = 432_000.0
    """Seconds of nothing but failures after which a webhook is disabled. Default 432,000 (5 days)."""
    max_waiting: Count = 100_000
    """Messages that may wait for one webhook; the oldest beyond that become dead letters. Default 100,000."""
    max_replay: Count = 10_000
    """Messages that one request may have delivered again. Default 10,000."""
    delivered_days: Annotated[float, Meta(gt=0, le=3650)] = 3.0
    """Days that delivered messages stay listed. Default 3."""
    dead_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0
    """Days that dead letters are kept. Default 30."""
    upkeep_interval: Seconds = 60.0
    """Seconds between looks for what is too old or too much. Default 60."""

    @property
    def claim_ttl(self) -> float:
        """Seconds after which another process may take over the messages of one that died."""
        return self.timeout + 5.0
