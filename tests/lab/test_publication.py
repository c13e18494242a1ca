"""What a participant publishes follows what those who take it ask for: over internal TCP, really encoded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bridges.internal.listener import InternalListener
from bridges.internal.receiver import InternalReceiver
from bridges.wire.frame import Feedback
from lab.media import publisher
from lab.media.source import GeneratedSource
from lab.portal_client import Published, TrackGrant
from lab.publication import Publication
from tests.lab.cluster_kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import pytest

    from bridges.wire.frame import MediaFrame
    from lab.portal_client import Address, TrackOffer

FULL = 600_000


class Portal:
    """Takes every track under its own id."""

    def __init__(self) -> None:
        self.tracks: list[TrackGrant] = []

    async def publish(self, tracks: Sequence[TrackOffer], source: Address) -> Published:
        del source
        self.tracks = [TrackGrant(id=track.id, type=track.type) for track in tracks]
        return Published(stream="stream", tracks=self.tracks)


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Publication, InternalReceiver, list[MediaFrame]]]:
    listener = await InternalListener.start()
    publication = Publication(
        GeneratedSource(320, 180),
        listener=listener,
        host="127.0.0.1",
        width=320,
        height=180,
        fps=20,
        video_bitrate=FULL,
    )
    portal = Portal()
    await publication.announce(portal)  # type: ignore[arg-type] # as much of one as is used
    [video] = [track.id for track in portal.tracks if track.type == "video"]
    frames: list[MediaFrame] = []
    encoding = asyncio.create_task(publication.run())
    receiver = await InternalReceiver.connect(
        "127.0.0.1", listener.port, video, on_frame=frames.append, on_lost=lambda _: None
    )
    try:
        yield publication, receiver, frames
    finally:
        receiver.close()
        encoding.cancel()
        await asyncio.wait([encoding])
        await listener.close()


async def test_the_encoder_does_as_it_is_asked_and_begins_with_a_key_frame() -> None:
    async with watched() as (publication, receiver, frames):
        await until(lambda: len(frames) > 3)
        receiver.send(Feedback.set_bitrate(120))
        await until(lambda: publication.take_report().bitrate == 120_000)
        await until(lambda: sum(frame.key_frame for frame in frames) == 2)
        receiver.send(Feedback.set_bitrate(5_000))
        await until(lambda: publication.take_report().bitrate == FULL)
        receiver.send(Feedback.set_bitrate(1))
        await until(lambda: publication.take_report().bitrate == 50_000)


async def test_what_was_asked_is_forgotten_unless_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_ASKED_FOR", 0.3)
    async with watched() as (publication, receiver, _):
        receiver.send(Feedback.set_bitrate(120))
        await until(lambda: publication.take_report().bitrate == 120_000)
        await until(lambda: publication.take_report().bitrate == FULL)
