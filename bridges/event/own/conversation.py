"""The conversation of one connection between two of our bridges, many conferences on it. Sans-IO.

Bytes of streams in, what they mean out (bridges.event.own.outputs); bytes for streams out, as many as there
is room for. A *lane* is one of the dialer's bidirectional streams, counted from 0 in the order of their QUIC ids
(lane n is stream 4n); lane 0 is there from the start, others are opened by the dialer's first bytes on them.

Nothing is queued for a slow peer but what cannot be made anew: events are read from the relays' logs at the
moment at which there is room for them (`data_to_send`), so a peer that does not read costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.event.own.outputs import Output
    from bridges.event.own.relay import Relay
    from bridges.event.own.settings import OwnWireSettings

__all__ = ["VERSIONS", "ChannelFigures", "Conversation", "Role"]

VERSIONS = (1,)
"""Versions of the protocol that this end speaks."""


class Role(Enum):
    """Who opened the connection."""

    DIALER = auto()
    LISTENER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFigures:
    """What was counted of one conference on this connection, since it was opened."""

    room: str
    channel: int
    lane: int
    open: bool
    events_in: int
    events_out: int
    bytes_in: int
    bytes_out: int
    duplicates: int
    """Events that had come another way already."""
    resumes: int
    """Takes that were answered from the log, by either end."""
    snapshots_in: int
    snapshots_out: int
    divergences: int
    """States found to differ, by either end."""
    owed: int
    """Events that the peer has taken up and was not sent yet."""
    unconsumed_bytes: int
    """Bytes of the peer's events that our node has not taken yet."""
    sent: dict[str, int]
    """Number of the last event sent, by origin."""


class Conversation:
    """One connection. `peer`: the cluster that was dialled; None for a listener, who hears it in the hello.

    `wake` is called (never from within a method of this conversation) when something has come about that can
    be sent, because of another connection, or of our node: call `lanes_to_send` soon.
    """

    def __init__(
        self,
        role: Role,
        *,
        cluster: str,
        peer: str | None,
        settings: OwnWireSettings,
        now: float,
        wake: Callable[[], None],
    ) -> None:
        raise NotImplementedError

    # --- looking ------------------------------------------------------------------------------------

    @property
    def greeted(self) -> bool:
        """Whether the two ends know each other."""
        raise NotImplementedError

    @property
    def peer(self) -> str:
        """The other cluster's id; empty until it is known."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether nothing is taken or given any more."""
        raise NotImplementedError

    @property
    def round_trip(self) -> float | None:
        """Seconds that the peer took to answer the last ping."""
        raise NotImplementedError

    @property
    def counters(self) -> dict[str, int]:
        """What was passed over or refused, by name: `unknown_messages`, `loops`, `refused_<code>` …."""
        raise NotImplementedError

    def figures(self) -> list[ChannelFigures]:
        """Return what was counted, by conference."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return how many conferences are carried, or being opened."""
        raise NotImplementedError

    # --- bytes --------------------------------------------------------------------------------------

    def receive(self, lane: int, data: bytes, now: float) -> list[Output]:
        """Take bytes of a lane and return what they mean, in order."""
        raise NotImplementedError

    def lanes_to_send(self) -> list[int]:
        """Return the lanes for which there is something to send, if there is room."""
        raise NotImplementedError

    def data_to_send(self, lane: int, room_for: int, now: float) -> bytes:
        """Return bytes for a lane, once: about `room_for` at most, one message more at worst.

        `room_for` is what the shell still wants to have unacknowledged on this lane. What is not taken now
        stays where it is; conferences take turns.
        """
        raise NotImplementedError

    # --- conferences --------------------------------------------------------------------------------

    def open(self, relay: Relay, token: str, now: float) -> int:
        """Dialer, once greeted: ask for a conference to be carried; returns its channel.

        An older channel of the same conference to the same peer, on whatever connection, is closed by what
        opens. Raises RuntimeError when not greeted, or beyond the peer's limit (`has_room`).
        """
        raise NotImplementedError

    @property
    def has_room(self) -> bool:
        """Whether the peer takes one more conference on this connection."""
        raise NotImplementedError

    def accept(self, channel: int, relay: Relay, now: float) -> list[Output]:
        """Carry a conference, after OpenRequested: the token was right. Of no effect for a channel that is gone."""
        raise NotImplementedError

    def close_channel(self, channel: int, code: int, reason: str, now: float) -> list[Output]:
        """Carry a conference no more, or refuse it. Of no effect for a channel that is gone."""
        raise NotImplementedError

    def lost(self, reason: str, now: float) -> list[Output]:
        """Take note that the connection is gone: its conferences are carried no more."""
        raise NotImplementedError

    # --- time ---------------------------------------------------------------------------------------

    def due(self) -> float:
        """Return when `poll` wants to be called next."""
        raise NotImplementedError

    def poll(self, now: float) -> list[Output]:
        """Do what time has come for: pings, digests, and giving up whoever is silent."""
        raise NotImplementedError
