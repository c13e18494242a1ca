"""A stream of a conference that is sent as RTP: when it goes, the next one that fits takes its place.

To the receiver it is one stream that goes on, as long as the codec is the same; with another codec the
description (SDP) is written anew.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from causeway.errors import ConfigError
from edge.places import Who
from edge.rtp import sdp
from edge.rtp.egress import RtpEgress
from edge.rtp.endpoint import RtpEndpoint
from edge.rtp.sdp import SdpTrack
from edge.rtp.track import Codec, RtpTrack
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from bridges.wire.frame import MediaFrame
    from bridges.wire.objects import Stream, TrackKind
    from edge.guest import Guest, Subscription
    from edge.places import Places
    from edge.rtp.settings import RtpSettings
    from edge.settings import RtpOutput

__all__ = ["Output"]

_log: Final = structlog.get_logger(__name__)
_PAYLOAD_TYPES: Final = {Codec.VP8: 96, Codec.VP9: 98, Codec.H264: 102, Codec.AV1: 104, Codec.OPUS: 111}
_RETRY: Final = 1.0  # seconds after which a subscription that was refused is tried again, at the latest


class Output:
    """One output. `open` finds its way, `run` sends until it is cancelled."""

    def __init__(self, settings: RtpOutput) -> None:
        self._settings = settings
        ports: dict[TrackKind, int] = {"video": settings.video_port, "audio": settings.audio_port}
        self._ports = {kind: port for kind, port in ports.items() if port}
        if not self._ports:
            raise ConfigError(f"edge.outputs: {settings.user}: video_port or audio_port is needed")
        self._endpoint: RtpEndpoint | None = None
        self._host = ""
        self._egresses: dict[TrackKind, RtpEgress] = {}
        self._subscription: Subscription | None = None

    async def open(self, *, settings: RtpSettings) -> None:
        """Find the destination, and take ports to send from. Raises ConfigError, PortsTakenError."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._settings.host, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(f"edge.outputs: {self._settings.host}: {error.strerror}") from None
        family, _, _, _, address = found[0]
        self._host = str(address[0])
        anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - what comes is only taken from the destination
        self._endpoint = await RtpEndpoint.open(anywhere, peer=self._host, settings=settings)

    def close(self) -> None:
        """Say goodbye, and give the ports back."""
        if self._endpoint is not None:
            self._endpoint.close()

    async def run(self, places: Places) -> None:
        """Send what there is to send. Raises ApiError for a wrong key."""
        who = Who(self._settings.conference, self._settings.user, self._settings.role)
        while True:
            guest = await places.join(who)
            try:
                while guest.present:
                    await self._watch(guest, places)
            finally:
                guest.leave()

    async def _watch(self, guest: Guest, places: Places) -> None:
        """Send one stream until it is gone, or wait for something to happen."""
        stream = self._choose(guest, places)
        if stream is None:
            await places.changed(guest.room, None)
            return
        codecs = self._codecs(stream)
        try:
            subscription = guest.subscribe(stream.id, codecs, self._take)
        except RoomError as error:
            _log.info("edge.not_subscribed", stream=stream.id, reason=str(error))
            await places.changed(guest.room, _RETRY)
            return
        await self._prepare(codecs)
        self._subscription = subscription
        _log.info("edge.sending", stream=stream.id, host=self._host, ports=self._ports)
        try:
            await self._send(subscription)
        finally:
            self._subscription = None
            subscription.end()
            self._tell_figures()

    async def _send(self, subscription: Subscription) -> None:
        """Send until the subscription is over, asking for key frames now and then where that is wanted."""
        every = self._settings.key_frame_every
        if not every:
            await subscription.run()
            return
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_ask_every(every, subscription))
            try:
                await subscription.run()
            finally:
                asking.cancel()

    def _choose(self, guest: Guest, places: Places) -> Stream | None:
        """Return the stream to send: the first that fits."""
        running = places.cluster.rooms.get_running(guest.room)
        if running is None:
            return None
        users = {one.id: one.user for one in running.room.participants}
        wanted = self._settings.of
        for stream in running.room.streams:
            owner = stream.info.owner
            fits = not wanted or wanted in {stream.id, users.get(owner)}
            if fits and owner != guest.participant and self._codecs(stream):
                return stream
        return None

    def _codecs(self, stream: Stream) -> dict[TrackKind, Codec]:
        """Return the tracks that can be sent, with their codecs."""
        codecs: dict[TrackKind, Codec] = {}
        for track in stream.media.tracks:
            name = str((track.format or {}).get("codec", "")).lower()
            if track.type in self._ports and name in _KNOWN:
                codecs[track.type] = Codec(name)
        return codecs

    async def _prepare(self, codecs: dict[TrackKind, Codec]) -> None:
        """Have what sends these tracks, and its description."""
        assert self._endpoint is not None
        before = {kind: egress.track.codec for kind, egress in self._egresses.items()}
        for kind, codec in codecs.items():
            if before.get(kind) is codec:
                self._egresses[kind].restart()
                continue
            if kind in self._egresses:
                self._egresses[kind].close()
            self._egresses[kind] = RtpEgress(
                self._endpoint,
                RtpTrack(codec=codec, payload_type=_PAYLOAD_TYPES[codec]),
                destination=(self._host, self._ports[kind]),
                cname=self._settings.user,
                on_key_frame_wanted=self._want_key_frame,
            )
        after = {kind: egress.track.codec for kind, egress in self._egresses.items()}
        if self._settings.sdp and after != before:
            tracks = [
                SdpTrack(track=egress.track, port=self._ports[kind])
                for kind, egress in self._egresses.items()
            ]
            text = sdp.write(tracks, host=self._host, name=self._settings.conference)
            try:
                await asyncio.to_thread(_replace, Path(self._settings.sdp), text)
            except OSError as error:
                _log.warning("edge.sdp_not_written", path=self._settings.sdp, reason=error.strerror)

    def _tell_figures(self) -> None:
        """Log what was sent since the codec is this one."""
        for kind, egress in self._egresses.items():
            _log.info(
                "edge.sent",
                user=self._settings.user,
                kind=kind,
                packets=egress.packets,
                repeated=egress.repeated,
                malformed=egress.malformed,
            )

    def _take(self, kind: TrackKind, frame: MediaFrame) -> None:
        self._egresses[kind].write(frame)

    def _want_key_frame(self) -> None:
        if self._subscription is not None:
            self._subscription.request_key_frame()


_KNOWN: Final = frozenset(codec.value for codec in Codec)


async def _ask_every(seconds: float, subscription: Subscription) -> NoReturn:
    while True:
        await asyncio.sleep(seconds)
        subscription.request_key_frame()


def _replace(path: Path, text: str) -> None:
    """Write a file so that nobody sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
