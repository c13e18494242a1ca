"""Keeps one stream of the room subscribed, from its appearance to its end.

A subscription that fails or ends is made anew, with growing pauses, for as long as the stream is there. It
must not know about the room's other streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from bridges.internal.receiver import InternalReceiver, InternalUnavailableError
from causeway.backoff import Backoff
from lab.portal_client import PortalRefusedError

if TYPE_CHECKING:
    from bridges.wire.frame import MediaFrame
    from bridges.wire.objects import Stream
    from lab.media.receiver import StreamReceiver
    from lab.portal_client import Address, PortalClient, TrackGrant

__all__ = ["StreamPull"]

_log: Final = structlog.get_logger(__name__)


class StreamPull:
    """One stream's subscription; `run` ends only by being cancelled or with PortalClosedError."""

    def __init__(
        self,
        stream: Stream,
        *,
        portal: PortalClient,
        internal: Address,
        receiver: StreamReceiver,
        backoff: Backoff | None = None,
    ) -> None:
        self.stream = stream
        self.receiver = receiver
        self.subscription: str | None = None
        """The id of the subscription that holds now."""
        self._portal = portal
        self._internal = internal
        self._backoff = backoff or Backoff(base=0.2, cap=2.0)
        self._over: asyncio.Future[str] | None = None
        self._video: InternalReceiver | None = None

    def end_subscription(self, reason: str) -> None:
        """Take note that the portal has ended the subscription; `run` makes a new one."""
        self.subscription = None
        self._lost(reason)

    def request_key_frame(self) -> None:
        """Ask for a key frame; without a subscription nothing happens, for a new one begins with one."""
        if self._video is not None:
            self._video.request_key_frame()

    async def run(self) -> None:
        """Subscribe, receive and decode, again and again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.receiver.run())
            while True:
                reason = await self._receive()
                delay = self._backoff.next_delay()
                _log.info("stream.lost", stream=self.stream.id, reason=reason, retry_in=round(delay, 2))
                await asyncio.sleep(delay)

    async def _receive(self) -> str:
        """Subscribe once, and receive until it is over; returns why."""
        kinds = sorted({track.type for track in self.stream.media.tracks})
        try:
            granted = await self._portal.subscribe(self.stream.id, kinds)
        except PortalRefusedError as error:
            return str(error)
        self.subscription = granted.subscription
        self._over = asyncio.get_running_loop().create_future()
        self.receiver.begin()
        async with contextlib.AsyncExitStack() as receivers:
            receivers.callback(self._close)
            try:
                for track in granted.tracks:
                    receivers.callback((await self._connect(track)).close)
                reason = await self._over
            except InternalUnavailableError as error:
                reason = str(error)
        # Reached only when the stream may still be there: what was granted is given back before the next.
        await self._unsubscribe()
        return reason

    async def _connect(self, track: TrackGrant) -> InternalReceiver:
        connection = await InternalReceiver.connect(
            self._internal.ip, self._internal.port, track.id, on_frame=self._take, on_lost=self._lost
        )
        if track.type == "video":
            self._video = connection
        return connection

    async def _unsubscribe(self) -> None:
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            # The portal may have ended it in the same moment.
            with contextlib.suppress(PortalRefusedError):
                await self._portal.unsubscribe(subscription)

    def _take(self, frame: MediaFrame) -> None:
        self._backoff.reset()
        self.receiver.take(frame)

    def _lost(self, reason: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(reason)

    def _close(self) -> None:
        self._video = None
        self._over = None
        self.receiver.end()
