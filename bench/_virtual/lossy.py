"""One cell of the matrix of lossy lines: a picture and a sound track over one of them, by one wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench._virtual.media import DEADLINE, SOUND, VIDEO
from bench._virtual.own_media import OwnMedia
from bench._virtual.peer import connect
from bench._virtual.scenario import OURS, percentile
from bench._virtual.stream_media import StreamMedia
from bench._virtual.world import World
from bridges.media.own.sending import Kind
from bridges.quic.inside.recovery import steer
from tests.impairment.core import Bursts, Impairment, Profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench._virtual.media import Shown, Track

__all__ = ["Cell", "Lossy", "profile_of", "told"]

_BEGIN: Final = 0.5
_FROM: Final = 2.0
_LAST: Final = 1.0
_RESOLUTION: Final = 0.0005
"""Virtual time is exact, but 200 ms are not a binary fraction."""
_IP_UDP: Final = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Lossy:
    """What is bad about a line, in both directions. Shares, and seconds."""

    loss: float = 0.0
    bursts: float = 0.0
    """Lost in runs of four, on average."""
    jitter: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What became of the frames that count, and what it cost."""

    round_trip: float
    delays: dict[str, list[float]]
    """Seconds from capture until there, by kind (video, sound); infinite for what never was."""
    overhead: float
    """Bytes on the line over bytes of media, less 1."""

    def in_time(self, kind: str) -> float:
        """Return the share that was in time."""
        limit = self.round_trip / 2 + DEADLINE + _RESOLUTION
        return sum(each <= limit for each in self.delays[kind]) / len(self.delays[kind])

    def delay(self, kind: str, share: float) -> float:
        """Return a percentile of the delays."""
        return percentile(self.delays[kind], share)

    @classmethod
    def merged(cls, cells: Sequence[Cell]) -> Cell:
        """Return cells of several seeds as one."""
        return cls(
            round_trip=cells[0].round_trip,
            delays={kind: [each for cell in cells for each in cell.delays[kind]] for kind in cells[0].delays},
            overhead=sum(cell.overhead for cell in cells) / len(cells),
        )


def profile_of(lossy: Lossy, round_trip: float) -> Profile:
    """Return what a line does in each direction."""
    bursts = Bursts(share=lossy.bursts, length=4) if lossy.bursts else None
    return Profile(delay=round_trip / 2, jitter=lossy.jitter, loss=lossy.loss, bursts=bursts)


def told(
    lossy: Lossy,
    round_trip: float,
    wire: str,
    *,
    seed: int,
    seconds: float = 14.0,
    tracks: Sequence[Track] = (VIDEO, SOUND),
) -> Cell:
    """Send tracks over a line: on our own wire for our controller, else on a stream per track."""
    world = World()
    profile = profile_of(lossy, round_trip)
    there, back = (Impairment(profile, f"{seed} {way}") for way in ("there", "back"))
    sender, receiver = connect(world, there, back, congestion=wire, fit=lambda quic: steer(quic, wire))
    kind_of_media = OwnMedia if wire == OURS else StreamMedia
    media: OwnMedia | StreamMedia | None = None

    def begin() -> None:
        nonlocal media
        media = kind_of_media(world, sender, receiver, tracks, begin=world.now, end=seconds)

    world.at(_BEGIN, lambda: receiver.when_ready(begin))
    world.run(seconds + 2)
    assert media is not None
    shown = [each for each in media.shown.values() if _FROM <= each.captured < seconds - _LAST]
    return Cell(
        round_trip=round_trip,
        delays={
            "video": _delays(shown, {Kind.KEY, Kind.DELTA}),
            "sound": _delays(shown, {Kind.SOUND}),
        },
        overhead=(there.sent_bytes + _IP_UDP * there.sent) / media.media_bytes - 1,
    )


def _delays(shown: Iterable[Shown], kinds: set[Kind]) -> list[float]:
    return [each.complete - each.captured for each in shown if each.kind in kinds]
