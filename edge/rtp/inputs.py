"""A stream that is received as RTP: it is in its conference while its packets come."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from bridges.wire.frame import FeedbackCommand
from causeway.errors import ConfigError
from edge.places import Who
from edge.rtp import sdp
from edge.rtp.endpoint import RtpEndpoint
from edge.rtp.errors import RtpError
from edge.rtp.ingress import RtpIngress
from edge.rtp.sdp import SdpTrack
from edge.rtp.track import RtpTrack
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridges.wire.frame import Feedback, MediaFrame
    from bridges.wire.objects import TrackKind
    from edge.guest import Guest, Publication
    from edge.places import Places
    from edge.rtp.settings import RtpSettings
    from edge.settings import RtpInput

__all__ = ["Input", "described"]

_log: Final = structlog.get_logger(__name__)


def described(settings: RtpInput) -> list[SdpTrack]:
    """Return the tracks of an input, from its file or its list. Raises ConfigError."""
    if settings.sdp:
        try:
            tracks = sdp.read(Path(settings.sdp).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, RtpError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"edge.inputs: {settings.sdp}: {reason}") from None
    else:
        tracks = [
            SdpTrack(
                track=RtpTrack(codec=one.codec, payload_type=one.payload_type, ssrc=one.ssrc),
                port=one.port,
                mux=one.mux,
            )
            for one in settings.tracks
        ]
    kinds = {one.track.codec.is_video for one in tracks}
    if not tracks or len(kinds) != len(tracks):
        raise ConfigError(f"edge.inputs: {settings.user}: one or two tracks are needed, one of each kind")
    return tracks


class Input:
    """One input. `open` takes its ports, `run` publishes it again and again, until it is cancelled."""

    def __init__(self, settings: RtpInput, tracks: Sequence[SdpTrack], *, idle_timeout: float) -> None:
        self._settings = settings
        self._tracks = {_kind(one.track): one for one in tracks}
        self._idle_timeout = idle_timeout
        self._endpoints: list[RtpEndpoint] = []
        self._ingresses: dict[TrackKind, RtpIngress] = {}
        self._publication: Publication | None = None
        self._flowing = asyncio.Event()
        self._last_frame = 0.0

    async def open(self, host: str, *, settings: RtpSettings) -> None:
        """Listen on `host`. Raises PortsTakenError."""
        for kind, one in self._tracks.items():
            endpoint = await RtpEndpoint.open(
                host, one.port, mux=one.mux, peer=self._settings.peer or None, settings=settings
            )
            self._endpoints.append(endpoint)
            take = functools.partial(self._take, kind)
            self._ingresses[kind] = RtpIngress(endpoint, one.track, on_frame=take)

    def close(self) -> None:
        """Give the ports back."""
        for endpoint in self._endpoints:
            endpoint.close()

    async def run(self, places: Places) -> None:
        """Publish the stream while it flows. Raises ApiError for a wrong key."""
        who = Who(self._settings.conference, self._settings.user, self._settings.role)
        while True:
            self._flowing.clear()
            await self._flowing.wait()
            guest = await places.join(who)
            try:
                await self._publish(guest, places)
            except RoomError as error:
                _log.warning("edge.not_published", user=who.user, reason=str(error))
                await places.changed(guest.room, self._idle_timeout)
            finally:
                self._publication = None
                guest.leave()
                self._tell_figures()

    async def _publish(self, guest: Guest, places: Places) -> None:
        """Publish until nothing comes any more, or the room is left. Raises RoomError."""
        loop = asyncio.get_running_loop()
        codecs = {kind: one.track.codec for kind, one in self._tracks.items()}
        self._publication = guest.publish(codecs, on_feedback=self._feedback)
        _log.info("edge.published", user=self._settings.user, stream=self._publication.stream)
        while guest.present:
            left = self._last_frame + self._idle_timeout - loop.time()
            if left <= 0:
                return
            await places.changed(guest.room, left)

    def _tell_figures(self) -> None:
        """Log what has come since the start."""
        for kind, ingress in self._ingresses.items():
            _log.info(
                "edge.unpublished",
                user=self._settings.user,
                kind=kind,
                frames=ingress.frames,
                lost_packets=ingress.lost_packets,
                malformed=ingress.malformed,
                left_out=ingress.left_out,
            )

    def _take(self, kind: TrackKind, frame: MediaFrame) -> None:
        self._last_frame = asyncio.get_running_loop().time()
        self._flowing.set()
        if self._publication is not None:
            self._publication.write(kind, frame)

    def _feedback(self, kind: TrackKind, feedback: Feedback) -> None:
        match feedback.command:
            case FeedbackCommand.REQUEST_KEY_FRAME:
                self._ingresses[kind].request_key_frame()
            case FeedbackCommand.SET_BITRATE:
                self._ingresses[kind].limit_bitrate(feedback.kbps * 1000)
            case _:
                pass


def _kind(track: RtpTrack) -> TrackKind:
    return "video" if track.codec.is_video else "audio"
