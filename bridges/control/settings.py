"""How a bridge process finds control and what it says of itself there: the table `[bridge.control]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ControlSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Name = r"^([A-Za-z0-9][A-Za-z0-9._~@:-]*)?$(?!\n)"


class ControlSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `url` the bridges take orders from their cluster only."""

    url: Annotated[str, Meta(pattern=r"^(https?://[^\s]+)?$(?!\n)", max_length=2048)] = ""
    """Base URL of control, `https://…`; empty: this process is no agent."""
    key: str = ""
    """Key to register with, `cw_enrolment_…`; needed with `url`."""
    region: Annotated[str, Meta(pattern=_Name, max_length=64)] = ""
    """Region that the bridges are in; needed with `url`."""
    agent: Annotated[str, Meta(pattern=_Name, max_length=128)] = ""
    """Id of this agent, its own and the same at every start; empty: made of cluster, kinds and host name."""
    max_conferences: Annotated[int, Meta(ge=0, le=100_000)] = 500
    """Conferences that control may give this agent."""
    expected_only: bool = False
    """Let in only clusters that control has said the conference is linked with. On the wires a cluster says
    itself who it is; with this it can say no name that is not the conference's. New links then need a
    control that reaches both ends."""
    call_timeout: _Seconds = 5.0
    """Seconds that a registration, and opening the channel, may take."""
    ping_interval: _Seconds = 2.0
    """Seconds between pings on the channel."""
    ping_timeout: _Seconds = 4.0
    """Seconds without a pong after which the channel counts as lost."""
    retry_base: _Seconds = 0.2
    """Seconds that the first delay before coming back may take; doubled with every failure."""
    retry_cap: _Seconds = 5.0
    """Seconds that this delay grows to at most."""
    max_unsent: Annotated[int, Meta(ge=16, le=100_000)] = 1024
    """Messages that may wait to be written; a control that is slower is left and come back to."""
    figures_interval: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds between two messages with what the bridges measure of their links."""
    figures_links: Annotated[int, Meta(ge=1, le=5000)] = 500
    """Links in one such message: those that have moved, the ones told longest ago first."""
    stop_timeout: _Seconds = 1.0
    """Seconds for taking the registration back at an orderly stop."""

    def __repr__(self) -> str:  # without the key
        return f"ControlSettings(url={self.url!r}, agent={self.agent!r}, region={self.region!r})"
