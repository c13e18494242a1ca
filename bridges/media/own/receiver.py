"""Everything of our own media that comes in on one connection: datagrams in; frames and key-frame wishes out.

Pure; time is an argument, in seconds. The shell around it opens a track before it asks the peer for it, gives
every datagram to receive(), calls tick() when due() says so, and does what they return.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from bridges.media.own.incoming import IncomingTrack, Received, TrackLimits
from bridges.wire.own_media.datagram import MAX_ALIAS, Bundle, Parity, decode
from bridges.wire.own_media.errors import MediaDatagramError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.wire.own_media.datagram import Fragment

__all__ = ["KeyFrameWanted", "MediaReceiver", "Output", "Received", "ReceiverLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverLimits:
    """Bounds of what comes in on a connection."""

    tracks: int = 1000
    total_bytes: int = 64 << 20
    """Of all tracks together; what comes beyond is passed over."""
    malformed: int = 100
    """Datagrams that are not of the format, after which the peer is not spoken to any more."""
    picture: TrackLimits = field(default_factory=TrackLimits)
    sound: TrackLimits = field(
        default_factory=lambda: TrackLimits(frame_bytes=64 << 10, track_bytes=256 << 10, patience=0.2)
    )


class KeyFrameWanted(NamedTuple):
    """The peer is to be asked for a key frame of a track."""

    alias: int


Output: TypeAlias = Received | KeyFrameWanted


class MediaReceiver:
    """The receiver of one connection.

    `figures` counts what concerns no track: malformed, unknown_track, refused (datagrams).
    """

    def __init__(self, limits: ReceiverLimits | None = None) -> None:
        self.figures: Final[Counter[str]] = Counter()
        self._limits = limits or ReceiverLimits()
        self._tracks: dict[int, IncomingTrack] = {}
        self._size = 0
        self._due = math.inf
        self._closed: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._size

    def open(self, alias: int, *, sound: bool) -> None:
        """Expect a track. Raises ValueError if the number is taken or cannot be, or there are too many."""
        if not 0 <= alias <= MAX_ALIAS or alias in self._tracks:
            raise ValueError(f"track {alias} cannot be opened")
        if len(self._tracks) >= self._limits.tracks:
            raise ValueError(f"there are {len(self._tracks)} tracks already")
        limits = self._limits.sound if sound else self._limits.picture
        self._tracks[alias] = IncomingTrack(alias, sound=sound, limits=limits)

    def close(self, alias: int) -> None:
        """Expect a track no more; what still comes of it is passed over."""
        track = self._tracks.pop(alias, None)
        if track is not None:
            self._size -= track.size
            self._closed += _figures_of(track)

    def track(self, alias: int) -> IncomingTrack:
        """Return a track, for its figures; raises KeyError."""
        return self._tracks[alias]

    def totals(self) -> Counter[str]:
        """Return the figures of all tracks, those that were closed included, and what parity `recovered`."""
        return sum(map(_figures_of, self._tracks.values()), Counter(self._closed))

    def receive(self, now: float, datagram: bytes) -> Sequence[Output]:
        """Take a datagram; return what follows from it.

        Malformed ones are passed over and counted. Raises MediaDatagramError when they are too many.
        """
        try:
            content = decode(datagram)
        except MediaDatagramError as error:
            self.malformed(error)
            return []
        if isinstance(content, Bundle):
            # The oldest first: it may be what the others wait for.
            return [each for part in reversed(content.fragments) for each in self._take(now, part)]
        return self._take(now, content)

    def malformed(self, error: MediaDatagramError) -> None:
        """Take note that something, maybe a frame that was handed on, is not of the format.

        Raises the error when there were too many.
        """
        self.figures["malformed"] += 1
        if self.figures["malformed"] >= self._limits.malformed:
            raise error

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        outputs = [
            output
            for track in self._tracks.values()
            if track.due() <= now
            for output in self._after(now, track, track.size, track.tick(now))
        ]
        self._due = min((track.due() for track in self._tracks.values()), default=math.inf)
        return outputs

    def due(self) -> float:
        """Return when to call tick(), now and then too early; infinite: not before something comes."""
        return self._due

    def _take(self, now: float, content: Fragment | Parity) -> Sequence[Output]:
        if isinstance(content, Parity):
            alias, size = content.alias, len(content.symbol)
        else:
            alias, size = content.head.alias, len(content.raw)
        track = self._tracks.get(alias)
        if track is None:
            self.figures["unknown_track"] += 1
            return []
        if self._size + size > self._limits.total_bytes:
            self.figures["refused"] += 1
            return []
        before = track.size
        return self._after(now, track, before, track.take(now, content))

    def _after(
        self, now: float, track: IncomingTrack, size_before: int, handed: list[Received]
    ) -> Sequence[Output]:
        self._size += track.size - size_before
        wished = track.wishes(now)
        self._due = min(self._due, track.due())
        return [*handed, KeyFrameWanted(track.alias)] if wished else handed


def _figures_of(track: IncomingTrack) -> Counter[str]:
    return track.figures + Counter(recovered=track.recovered)
