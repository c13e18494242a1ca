"""Agents: `[control.agents]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["AgentSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control.agents]`: bridges and recorders that control tells what to do (docs/agents.md)."""

    ttl: Annotated[float, Meta(ge=0.3, le=3600)] = 6.0
    """Seconds that a registration holds without a heartbeat; then the agent's conferences go to others.
    Agents are told to beat three times as often. Default 6."""
    sweep_interval: Seconds = 0.5
    """Seconds between looks for leases that ran out; should be well below `ttl`. Default 0.5."""
    waiting_interval: Seconds = 5.0
    """Seconds between looks for conferences that wait for an agent with room. Default 5."""
    poll_interval: Seconds = 10.0
    """Seconds between looks at an agent's whole desired state when no notice comes. Default 10."""
    hello_timeout: Seconds = 5.0
    """Seconds that an agent gets for the first message on its channel. Default 5."""
    send_timeout: Seconds = 10.0
    """Seconds that an agent gets to take a message; then its channel is closed. Default 10."""
    max_channels: Count = 1024
    """Channels open at the same time in this process; further ones are answered 503. Default 1,024."""
    forget_days: Annotated[float, Meta(gt=0, le=36_500)] = 7.0
    """Days after which an agent that left or was lost is forgotten. Default 7."""
