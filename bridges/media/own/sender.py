"""Everything of our own media that goes out on one connection: frames in; datagrams and key-frame wishes out.

Pure; time is an argument, in seconds of one clock that also stamps the frames. The shell around it offers
frames, sends what head() returns when the connection takes a datagram, and tells settled() what QUIC's own
loss detection finds out about it. What was lost is sent again as long as that is of use, unless parity on its
way makes up for it. docs/media.md tells why.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from bridges.media.own.measuring import LossMeter
from bridges.media.own.outgoing import OutgoingFrame, OutgoingTrack, Source
from bridges.media.own.policy import Path, Policy, repeat_takes
from bridges.media.own.relief import Relief
from bridges.media.own.sending import Fragment, Kind, Limits, SendQueue
from bridges.wire.own_media.datagram import MAX_ALIAS, is_parity, newest_fragment

if TYPE_CHECKING:
    from bridges.media.own.outgoing import Offered
    from bridges.media.own.policy import Repair, Tuning
    from bridges.media.own.sending import Frame

__all__ = ["Flight", "MediaSender", "Outcome", "SenderLimits", "Source"]


_BACKLOG: Final = 0.4
"""Seconds that a picture may have to wait: to be late costs less than to need a key frame."""
_ROOM: Final = 0.05
"""Where no more than this, in seconds, waits to be sent, parity is not spared."""
_FEW: Final = 0.03
"""The share of losses below which repeats are sent twice."""
_KEY_BACKLOG: Final = 0.1
"""Seconds of sending that key frames which are asked for may add up to."""
_KNOCKS: Final = 16
"""Tracks of which sound is sent again on a silent path."""
_CHOICE_HOLDS: Final = 0.01
"""Seconds for which the way of repair is not chosen anew because of the path's losses and length."""


class Outcome(enum.Enum):
    """What becomes of a frame that is offered."""

    TAKEN = "taken"
    REFUSED = "refused"
    """The path takes less than is offered, or the frame has more parts than a frame may have."""
    UNDECODABLE = "undecodable"
    """It needs a frame that was not sent."""
    LEFT_OUT = "left_out"
    """It is of a temporal layer that is not let through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderLimits:
    """Bounds of what goes out on a connection. Times in seconds."""

    tracks: int = 1000
    largest: int = 1150
    """Bytes of the largest datagram that the path takes at first; see MediaSender.resize()."""
    deadline: float = 0.2
    """Later than this, beyond the path's own delay, a frame is too late to be shown or heard in time."""
    useful: float = 0.6
    """Later than this, a picture does not even help those that need it."""
    key_frame_interval: float = 0.5
    """Between two wishes for a key frame of a track."""


class Flight(NamedTuple):
    """A datagram on its way."""

    fragment: Fragment
    number: int


class _Track:
    __slots__ = ("given_up", "held_until", "highest", "key_at", "key_size", "outgoing", "wished_at")

    def __init__(self, outgoing: OutgoingTrack) -> None:
        self.outgoing = outgoing
        self.given_up = 0
        """Frames that were taken, and did not go out whole after all, or not in time."""
        self.highest: int | None = None
        self.wished_at = -math.inf
        self.held_until = -math.inf
        self.key_at = -math.inf
        """When the last one was taken."""
        self.key_size = 0


class MediaSender:
    """The sender of one connection.

    `figures` counts: taken, refused, undecodable, left_out (frames); fragments, parity, repeated, lost
    (datagrams); given_up (frames that were lost for good); wishes.
    """

    def __init__(
        self,
        limits: SenderLimits | None = None,
        *,
        queue: Limits | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.figures: Final[Counter[str]] = Counter()
        self.meter: Final = LossMeter()
        self.queue: Final = SendQueue(queue or Limits(backlog=_BACKLOG), on_given_up=self._gave_up)
        self.sent_bytes = 0
        """Of all datagrams, since the beginning."""
        self.sound_copies = 0
        """So often sound is carried again at least."""
        self._limits = limits or SenderLimits()
        self._largest = self._limits.largest
        self._policy = Policy(deadline=self._limits.deadline, tuning=tuning)
        self._repair: Repair | None = None
        self._choose_at = -math.inf
        self._tracks: dict[int, _Track] = {}
        self._wanted: dict[int, _Track] = {}
        """Those of which a key frame is."""
        self._ask_at = math.inf
        """When wishes() has something to look at, at the earliest."""
        self._round_trip = 0.0
        self._relief = Relief()
        self._has_room = True
        self._silent = False
        """Whether the path has swallowed what was sent last: a key frame would be lost as well."""

    # --- tracks and frames ------------------------------------------------------------------------

    def open(self, alias: int, *, sound: bool) -> None:
        """Begin a track. Raises ValueError if the number is taken or cannot be, or there are too many."""
        if not 0 <= alias <= MAX_ALIAS or alias in self._tracks:
            raise ValueError(f"track {alias} cannot be opened")
        limits = self._limits
        if len(self._tracks) >= limits.tracks:
            raise ValueError(f"there are {len(self._tracks)} tracks already")
        outgoing = OutgoingTrack(
            alias, sound=sound, largest=self._largest, deadline=limits.deadline, useful=limits.useful
        )
        self._tracks[alias] = _Track(outgoing)

    def close(self, alias: int) -> None:
        """End a track; nothing of it that waits is sent."""
        self._wanted.pop(alias, None)
        self._relief.forget(alias)
        if self._tracks.pop(alias, None) is not None:
            self.queue.forget(alias)

    def given_up(self, alias: int) -> int:
        """Return how many frames of an open track were taken, and did not go out whole; raises KeyError."""
        return self._tracks[alias].given_up

    def let_through(self, alias: int, temporal: int | None) -> None:
        """Send of an open track no higher temporal layer than that; None: all. Raises KeyError."""
        self._tracks[alias].highest = temporal

    def resize(self, largest: int) -> None:
        """Make datagrams of at most so many bytes, from the next frames on.

        Where that is less than before, frames of which something larger waits, or has to be repeated, are
        given up, as fragments cannot be cut again.
        """
        if largest == self._largest:
            return
        self._largest = largest
        self.queue.resize(largest)
        for track in self._tracks.values():
            track.outgoing.resize(largest)

    def measured(self, round_trip: float) -> None:
        """Take note of the round trip of the path when no queue stands in it, in seconds.

        A queue would make repeats seem hopeless, and parity in their place would lengthen the queue.
        """
        self._round_trip = round_trip

    def offer(self, now: float, alias: int, source: Source, *, rate: float | None) -> Outcome:
        """Send a frame of an open track, if the path takes it.

        `rate` is what the path takes, in bytes a second (None: unknown). Raises KeyError.
        """
        track = self._tracks[alias]
        if track.highest is not None and source.temporal > track.highest:
            track.outgoing.leave_out(source)
            self.figures[Outcome.LEFT_OUT.value] += 1
            return Outcome.LEFT_OUT
        self._has_room = not rate or self.queue.waiting <= _ROOM * rate
        repair = self._how_to_repair(now)
        offered = track.outgoing.prepare(source, repair)
        outcome = Outcome.REFUSED
        if offered is None:
            if track.outgoing.fits(source.body):
                outcome = Outcome.UNDECODABLE
        elif self._passes(now, alias, offered.frame.kind, rate) and self.queue.offer(
            now, offered.frame, offered.datagrams, rate=rate
        ):
            outcome = Outcome.TAKEN
            self.figures["fragments"] += len(offered.datagrams)
            for parity in track.outgoing.take(offered, repair):
                self._offer_parity(now, parity, rate)
        self.figures[outcome.value] += 1
        if outcome is Outcome.REFUSED:
            self._relief.refused(now, alias)
        if outcome is Outcome.TAKEN and not source.needs:
            self._wanted.pop(alias, None)
            track.key_at = now
            track.key_size = len(source.body)
        elif outcome is not Outcome.TAKEN and not source.discardable and not source.temporal:
            self._want(alias, track)  # what is missing of a higher layer comes with the next key frame anyway
        return outcome

    def _how_to_repair(self, now: float) -> Repair:
        """Return what is chosen for all tracks of the connection."""
        repair, room, copies = self._repair, self._has_room, self.sound_copies
        if (
            repair is None
            or now >= self._choose_at
            or repair.room is not room
            or repair.least_copies != copies
        ):
            path = Path(
                round_trip=self._round_trip,
                loss=self.meter.loss,
                run_length=self.meter.run_length,
                room=room,
                copies=copies,
            )
            repair = self._repair = self._policy.choose(now, path)
            self._choose_at = now + _CHOICE_HOLDS
        return repair

    def _passes(self, now: float, alias: int, kind: Kind, rate: float | None) -> bool:
        """Return whether a frame's track need not pause for the sake of the others."""
        if kind is Kind.SOUND or not rate:
            return True
        return self._relief.passes(now, alias, key=kind is Kind.KEY, wait=self.queue.waiting / rate)

    def _offer_parity(self, now: float, parity: Offered, rate: float | None) -> None:
        if self.queue.offer(now, parity.frame, parity.datagrams, rate=rate):
            self.figures["parity"] += len(parity.datagrams)
        elif parity.frame.group is not None:
            parity.frame.group.rows = 0

    # --- key frames -------------------------------------------------------------------------------

    def peer_wishes(self, now: float, alias: int) -> None:
        """Take note that the receiver wants a key frame; of no effect if it has not seen the last one yet."""
        track = self._tracks.get(alias)
        if track is not None and now - track.key_at > self._round_trip:
            self._want(alias, track)

    def wishes(self, now: float, *, rate: float | None) -> list[int]:
        """Return the tracks of whose source a key frame is to be asked now; each only once in a while.

        No more are asked for than the path can take soon (`rate` as in offer()): a key frame that meets a
        queue makes it longer, and what follows it would be refused again.
        """
        if now < self._ask_at or self._silent:
            return []
        room = math.inf if rate is None else _KEY_BACKLOG * rate - self.queue.waiting
        asked = []
        for alias, track in self._wanted.items():
            if now < self._wish_at(track):
                continue
            if room <= 0 or not self._relief.may_go_on(now, alias):
                track.held_until = now + _KEY_BACKLOG / 2
                continue
            room -= track.key_size
            track.wished_at = now
            asked.append(alias)
        self.figures["wishes"] += len(asked)
        self._ask_at = min(map(self._wish_at, self._wanted.values()), default=math.inf)
        return asked

    def due(self) -> float:
        """Return when to call wishes(), now and then too early; infinite: not before something happens."""
        return self._ask_at if self._wanted and not self._silent else math.inf

    def _want(self, alias: int, track: _Track) -> None:
        if not track.outgoing.sound:
            self._wanted[alias] = track
            self._ask_at = min(self._ask_at, self._wish_at(track))

    def _wish_at(self, track: _Track) -> float:
        return max(track.wished_at + self._limits.key_frame_interval, track.held_until)

    # --- datagrams --------------------------------------------------------------------------------

    def head(self, now: float) -> bytes | None:
        """Return what is to be sent next; None: nothing."""
        fragment = self.queue.head(now)
        return None if fragment is None else fragment.data

    def taken(self) -> Flight:
        """Take note that what head() returned is on its way; settled() is to be told what becomes of it."""
        fragment = self.queue.pop()
        fragment.flying += 1
        self.sent_bytes += len(fragment.data)
        return Flight(fragment, self.meter.sent())

    def settled(self, now: float, flight: Flight, *, arrived: bool) -> None:
        """Take note that a datagram arrived, or that QUIC's loss detection takes it for lost."""
        fragment, number = flight
        self.meter.settled(number, arrived=arrived)
        if arrived:
            fragment.flying = 0
            self._silent = False
        elif fragment.flying:  # else another copy has arrived
            fragment.flying -= 1
            self.figures["lost"] += 1
            if not fragment.flying:
                self._lost(now, fragment)

    def knock(self, now: float) -> None:
        """Send the latest sound of some tracks once more: on a silent path, this may be what gets through."""
        self._silent = True
        left = _KNOCKS
        for track in self._tracks.values():
            again = track.outgoing.again() if track.outgoing.sound else None
            if again is not None and now <= again.frame.deadline:
                self.queue.offer(now, again.frame, again.datagrams, rate=None)
                left -= 1
            if not left:
                break

    def _lost(self, now: float, fragment: Fragment) -> None:
        """Send something again if there is no other way to have the frame."""
        group = _outgoing(fragment).group
        if group is None:
            self._repeat(now, fragment)
            return
        if is_parity(fragment.data):
            group.parity_lost += 1
        else:
            group.lost.append(fragment)
        while group.lost and len(group.lost) + group.parity_lost > group.rows:
            self._repeat(now, group.lost.pop())

    def _repeat(self, now: float, fragment: Fragment) -> None:
        frame = _outgoing(fragment)
        if now > frame.useful_until:
            if not frame.dead:
                frame.dead = True
                self._gave_up(frame)
                self.figures["given_up"] += 1
            return
        frame.deadline = frame.useful_until
        if not self.queue.lost(now, fragment):
            return
        self.figures["repeated"] += 1
        # Where no further repeat would be in time, two are sent at once: the last word must arrive. Likewise
        # where they are few: everything behind waits for what has to be repeated again.
        few = self._has_room and self.meter.loss < _FEW
        if now + self._until_known(frame) <= frame.in_time_until and not few:
            return
        track = self._tracks.get(frame.track)
        if frame.kind is not Kind.SOUND:
            self.figures["repeated"] += self.queue.lost(now, fragment)
        elif track is not None:
            # It is so small that both would travel in the same packet.
            track.outgoing.carry(newest_fragment(fragment.data))

    def _gave_up(self, frame: Frame) -> None:
        """Take note that a frame was taken for nothing, and with it those that need it; parity is none.

        A key frame is wanted at once: until the next frame is offered, time would be lost.
        """
        track = self._tracks.get(frame.track)
        if track is None or not isinstance(frame, OutgoingFrame) or frame.number < 0:
            return
        useless = track.outgoing.useless_without(frame)
        for each in useless:
            each.dead = True
        track.given_up += 1 + len(useless)
        if frame.needed:
            self._want(frame.track, track)

    def _until_known(self, frame: OutgoingFrame) -> float:
        """Return how long it takes to hear of a loss; pessimistic for sound, which is small."""
        return repeat_takes(self._round_trip) if frame.kind is Kind.SOUND else 1.15 * self._round_trip


def _outgoing(fragment: Fragment) -> OutgoingFrame:
    frame = fragment.frame
    assert isinstance(frame, OutgoingFrame)  # this module puts no others into the queue
    return frame
