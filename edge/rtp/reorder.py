"""Puts the packets of one source in order, and says which are missing. Pure: time is an argument, in seconds.

What comes out is packets one after the other, and GAP where some will not come. A missing packet is asked
for (`missing`) after a moment, for it may only be late, then again until it comes or its time is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from edge.rtp.budget import Budget

if TYPE_CHECKING:
    from edge.rtp.packet import RtpPacket
    from edge.rtp.settings import RtpSettings

__all__ = ["GAP", "Gap", "Ordered", "Reorder"]

_ROUND: Final = 1 << 16
_MAX_LATE: Final = 512  # packets that one may come late; one from further back begins a new count


class Gap(Enum):
    """Packets between the one before and the one after will not come."""

    GAP = "gap"


GAP: Final = Gap.GAP
Ordered = "list[RtpPacket | Gap]"


@dataclass(slots=True)
class _Missing:
    since: float
    ask_at: float


class Reorder:
    """The packets of one source (SSRC)."""

    def __init__(self, settings: RtpSettings) -> None:
        self._settings = settings
        self._budget = Budget(settings.max_nacks_per_second)
        self._waiting: dict[int, RtpPacket] = {}
        self._missing: dict[int, _Missing] = {}
        self._next: int | None = None
        self._stray: int | None = None
        self.first = 0
        """The extended sequence number that it began with: that of the packet, with rounds of 2^16 above."""
        self.highest = 0
        """The highest extended sequence number that has come."""
        self.received = 0
        """Packets that came, without those that came twice."""
        self.given_up = 0
        """Packets that did not come in time."""

    def push(self, now: float, packet: RtpPacket) -> list[RtpPacket | Gap]:
        """Take a packet; returns what is in order now."""
        if self._next is None:
            self._begin(packet.sequence)
            self.first = self.highest
        number = self._extended(packet.sequence)
        if number < self.highest - _MAX_LATE or number > self.highest + 8 * _MAX_LATE:
            return self._restart(now, packet)
        self._stray = None
        assert self._next is not None
        if number < self._next or number in self._waiting:
            return []
        self.received += 1
        self._waiting[number] = packet
        self._missing.pop(number, None)
        for between in range(self.highest + 1, number):
            self._missing[between] = _Missing(now, now + self._settings.nack_delay)
        self.highest = max(self.highest, number)
        return self._take(now)

    def tick(self, now: float) -> list[RtpPacket | Gap]:
        """Give up what has been missing for too long; returns what is in order then."""
        return self._take(now)

    def missing(self, now: float) -> tuple[int, ...]:
        """Return the sequence numbers to ask for now; they count as asked for."""
        asked = []
        for number, lost in self._missing.items():
            if lost.ask_at <= now and self._budget.take(now):
                lost.ask_at = now + self._settings.nack_interval
                asked.append(number % _ROUND)
        return tuple(asked)

    def due(self) -> float | None:
        """Return when to call `tick` and `missing` next; None: not before the next packet."""
        if not self._missing:
            return None
        first = next(iter(self._missing.values()))
        asking = min(lost.ask_at for lost in self._missing.values())
        return min(asking, first.since + self._settings.patience)

    def _begin(self, sequence: int) -> None:
        # One round up, so that packets from before the first one have numbers, too.
        self._next = self.highest = sequence + _ROUND

    def _extended(self, sequence: int) -> int:
        ahead = (sequence - self.highest) % _ROUND
        return self.highest + ahead - (_ROUND if ahead >= _ROUND // 2 else 0)

    def _restart(self, now: float, packet: RtpPacket) -> list[RtpPacket | Gap]:
        """Begin a new count when a packet from far away is followed by the next one (RFC 3550, A.1)."""
        if self._stray != packet.sequence:
            self._stray = (packet.sequence + 1) % _ROUND
            return []
        ordered: list[RtpPacket | Gap] = [*self._flush(), GAP]
        self._begin(packet.sequence)
        self.first, self.received = self.highest, 0
        self._stray = None
        return [*ordered, *self.push(now, packet)]

    def _flush(self) -> list[RtpPacket | Gap]:
        """Give up everything that is missing; return what waited for it."""
        ordered: list[RtpPacket | Gap] = []
        for number in sorted(self._waiting):
            if self._next is not None and number != self._next:
                ordered.append(GAP)
            ordered.append(self._waiting[number])
            self._next = number + 1
        self.given_up += len(self._missing)
        self._waiting.clear()
        self._missing.clear()
        return ordered

    def _take(self, now: float) -> list[RtpPacket | Gap]:
        """Return what is in order, giving up what is overdue."""
        assert self._next is not None or not self._waiting
        ordered: list[RtpPacket | Gap] = []
        while self._waiting and self._next is not None:
            packet = self._waiting.pop(self._next, None)
            if packet is not None:
                ordered.append(packet)
                self._next += 1
                continue
            lost = self._missing[self._next]
            full = len(self._waiting) > self._settings.max_waiting_packets
            if not full and now < lost.since + self._settings.patience:
                break
            while self._next not in self._waiting:
                self._missing.pop(self._next, None)
                self.given_up += 1
                self._next += 1
            ordered.append(GAP)
        return ordered
