"""The channel's messages as release 0.1 speaks them: copied once, not edited since, on their own.

A side one release older or newer than this must understand it, and be understood: see test_control_older.py.
When a release is made, this file is replaced by that release's messages; never otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Address(Part, frozen=True, kw_only=True):
    host: str
    port: int
    fingerprint: str | None = None


class Load(Part, frozen=True, kw_only=True):
    conferences: int = 0
    links: int = 0
    cpu: float = 0.0
    bandwidth_in: int = 0
    bandwidth_out: int = 0


class RoundTrip(Part, frozen=True, kw_only=True):
    cluster: str
    ms: float
    jitter_ms: float = 0.0


class Refusal(Part, frozen=True, kw_only=True):
    conference: str
    peer: str | None = None
    reason: str


class LinkState(Part, frozen=True, kw_only=True):
    conference: str
    peer: str
    state: Literal["up", "down"]
    error: str | None = None


class DesiredLink(Part, frozen=True, kw_only=True):
    peer: str
    role: Literal["dial", "listen"]
    attempt: int = 0
    token: str | None = None
    event: Address | None = None
    media: Address | None = None


class Assignment(Part, frozen=True, kw_only=True):
    conference: str
    kinds: list[str] = field(default_factory=list)
    links: list[DesiredLink] = field(default_factory=list)


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    epoch: int
    version: int | None = None


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    load: Load = field(default_factory=Load)
    round_trips: list[RoundTrip] = field(default_factory=list)


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    version: int


class Refuse(Message, frozen=True, kw_only=True, tag="refuse"):
    version: int
    problems: list[Refusal]


class Report(Message, frozen=True, kw_only=True, tag="report"):
    links: list[LinkState]
    full: bool = False


class Resync(Message, frozen=True, kw_only=True, tag="resync"):
    pass


class Desired(Message, frozen=True, kw_only=True, tag="desired"):
    version: int
    conferences: list[Assignment]


class Delta(Message, frozen=True, kw_only=True, tag="delta"):
    base: int
    version: int
    set: list[Assignment] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)


class Lease(Message, frozen=True, kw_only=True, tag="lease"):
    ttl: float


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    reason: str
    retry_after: float = 0.0


FromAgent = Hello | Heartbeat | Ack | Refuse | Report | Resync
FromControl = Desired | Delta | Lease | Goodbye

SUBPROTOCOL = "causeway.agent.v1"

_FROM_AGENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FromAgent)
_FROM_CONTROL: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FromControl)


def encode(message: FromAgent | FromControl) -> str:
    return msgspec.json.encode(message).decode()


def from_agent(frame: str | bytes) -> Any:
    return _FROM_AGENT.decode(frame)


def from_control(frame: str | bytes) -> Any:
    return _FROM_CONTROL.decode(frame)
