"""What a participant publishes: one stream of VP8 and Opus, served on an internal listener of its own.

The encoders belong to the process, the tracks to one stay at one cluster: each `announce` serves new track
ids. It must not know when and where the participant is joined.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from bridges.wire.frame import FeedbackCommand
from lab.media.publisher import Publisher
from lab.portal_client import Address, TrackOffer

if TYPE_CHECKING:
    from bridges.internal.listener import InternalListener, Source
    from bridges.wire.frame import Feedback, MediaFrame
    from lab.media.source import Source as MediaSource
    from lab.portal_client import PortalClient
    from lab.reports import Published

__all__ = ["Publication"]


class Publication:
    """Publishes `media` from `listener`, which runs at `host`; `run` encodes until it is cancelled."""

    def __init__(
        self,
        media: MediaSource,
        *,
        listener: InternalListener,
        host: str,
        width: int,
        height: int,
        fps: int,
        video_bitrate: int,
    ) -> None:
        self._listener = listener
        self._host = host
        self._publisher = Publisher(
            media,
            width=width,
            height=height,
            fps=fps,
            video_bitrate=video_bitrate,
            on_video=self._write_video,
            on_audio=self._write_audio,
        )
        self._video: Source | None = None
        self._audio: Source | None = None
        self._dropped_before = 0

    async def run(self) -> None:
        """Encode what is pulled, for ever. Raises what the media source or an encoder raises."""
        await self._publisher.run()

    async def announce(self, portal: PortalClient) -> str:
        """Publish the tracks at `portal`; returns the stream's id. Raises what its `publish` raises."""
        self.withdraw()
        offers = [
            TrackOffer(id=f"video-{secrets.token_hex(16)}", type="video", format={"codec": "vp8"}),
            TrackOffer(
                id=f"audio-{secrets.token_hex(16)}",
                type="audio",
                format={"codec": "opus", "sampleRate": 48000, "channelNum": 2},
            ),
        ]
        published = await portal.publish(offers, Address(self._host, self._listener.port))
        # The portal may have chosen other ids; whoever connects before this line waits in the listener.
        for track in published.tracks:
            if track.type == "video":
                self._video = self._listener.add_source(
                    track.id,
                    on_feedback=self._feedback,
                    on_joined=self._publisher.set_video_subscribers,
                    on_left=self._publisher.set_video_subscribers,
                )
            else:
                self._audio = self._listener.add_source(
                    track.id,
                    on_joined=self._publisher.set_audio_subscribers,
                    on_left=self._publisher.set_audio_subscribers,
                )
        return published.stream

    def withdraw(self) -> None:
        """Serve the tracks no more; nothing is encoded until the next `announce`."""
        for source in (self._video, self._audio):
            if source is not None:
                self._dropped_before += source.dropped
                source.close()
        self._video = self._audio = None
        self._publisher.set_video_subscribers(0)
        self._publisher.set_audio_subscribers(0)

    def take_report(self) -> Published:
        """Return what was encoded; lists are those since the last call."""
        now = sum(source.dropped for source in (self._video, self._audio) if source is not None)
        return self._publisher.take_report(dropped=self._dropped_before + now)

    def _write_video(self, frame: MediaFrame) -> None:
        if self._video is not None:
            self._video.write(frame)

    def _write_audio(self, frame: MediaFrame) -> None:
        if self._audio is not None:
            self._audio.write(frame)

    def _feedback(self, feedback: Feedback) -> None:
        if feedback.command is FeedbackCommand.REQUEST_KEY_FRAME:
            self._publisher.request_key_frame()
        elif feedback.command is FeedbackCommand.SET_BITRATE:
            self._publisher.ask_bitrate(feedback.kbps * 1000)
