"""The streams of others in a room: one pull for each that is there, and counters that outlive it.

It must not know how the room was joined; it hears of streams from the join's answer and the portal's events.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from bridges.wire.objects import Stream
from lab.media.receiver import StreamReceiver
from lab.portal_client import PortalClosedError
from lab.pulling import StreamPull
from lab.reports import StreamAdded, StreamRemoved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import ThreadPoolExecutor

    from lab.portal_client import Address, Event, PortalClient
    from lab.reports import Line, Received

__all__ = ["Watch"]


class Watch:
    """Receives every stream of others; `say` is told which there are, `thread` decodes.

    The counters of at most `max_streams` streams are kept, those of streams that are there first.
    """

    def __init__(
        self, *, say: Callable[[Line], None], thread: ThreadPoolExecutor, max_streams: int = 64
    ) -> None:
        self._say = say
        self._thread = thread
        self._max_streams = max_streams
        self._receivers: dict[str, StreamReceiver] = {}
        self._pulls: dict[str, tuple[StreamPull, asyncio.Task[None]]] = {}

    async def follow(
        self,
        portal: PortalClient,
        *,
        me: str,
        cluster: str,
        internal: Address,
        streams: Iterable[Stream],
    ) -> NoReturn:
        """Pull `streams` and those that the portal's events add, until the connection ends.

        `me` is our participant id: our own streams are not pulled. `cluster` is where we are. Raises
        PortalClosedError.
        """
        closed = PortalClosedError("the portal connection ended")
        try:
            async with asyncio.TaskGroup() as tasks:

                def add(stream: Stream) -> None:
                    if stream.info.owner != me and stream.id not in self._pulls:
                        self._add(stream, portal=portal, internal=internal, cluster=cluster, tasks=tasks)

                for stream in streams:
                    add(stream)
                while True:
                    event = await portal.next_event()
                    if event.event == "streamAdded":
                        add(_stream(event))
                    else:
                        self._handle(event)
        except* PortalClosedError as group:
            # Every pull may have noticed; one says it for all.
            closed = _first(group)
        finally:
            for stream_id in list(self._pulls):
                self._remove(stream_id)
        raise closed

    def take_report(self) -> dict[str, Received]:
        """Return what came of each stream; lists are those since the last call."""
        return {stream_id: receiver.take_report() for stream_id, receiver in self._receivers.items()}

    def _add(
        self,
        stream: Stream,
        *,
        portal: PortalClient,
        internal: Address,
        cluster: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        receiver = self._receiver(stream, cluster)
        pull = StreamPull(stream, portal=portal, internal=internal, receiver=receiver)
        receiver.on_key_frame_wanted = pull.request_key_frame
        receiver.active = True
        self._pulls[stream.id] = (pull, tasks.create_task(pull.run(), name=f"pull-{stream.id}"))
        self._say(StreamAdded(t=time.monotonic(), stream=stream.id, from_cluster=receiver.from_cluster))

    def _receiver(self, stream: Stream, cluster: str) -> StreamReceiver:
        """Return the stream's receiver, also one that a stream of this id had before."""
        if stream.id not in self._receivers:
            gone = [id_ for id_, receiver in self._receivers.items() if not receiver.active]
            for id_ in gone[: max(0, len(self._receivers) - self._max_streams + 1)]:
                del self._receivers[id_]
            self._receivers[stream.id] = StreamReceiver(stream.cluster or cluster, thread=self._thread)
        return self._receivers[stream.id]

    def _handle(self, event: Event) -> None:
        if event.event == "streamRemoved":
            self._remove(_id(event.data, "id", "stream"))
        elif event.event == "subscriptionEnded":
            subscription = _id(event.data, "subscription", "id")
            reason = event.data.get("reason") if isinstance(event.data, dict) else None
            for pull, _task in self._pulls.values():
                if pull.subscription == subscription:
                    pull.end_subscription(f"the cluster ended the subscription: {reason}")
        # Participants come and go, streams change: nothing to do about it here.

    def _remove(self, stream_id: str) -> None:
        pull, task = self._pulls.pop(stream_id, (None, None))
        if pull is None or task is None:
            return
        task.cancel()
        pull.receiver.active = False
        from_cluster = pull.receiver.from_cluster
        self._say(StreamRemoved(t=time.monotonic(), stream=stream_id, from_cluster=from_cluster))


def _stream(event: Event) -> Stream:
    try:
        return msgspec.convert(event.data, Stream)
    except msgspec.ValidationError as error:
        raise PortalClosedError(f"the portal announced what is no stream: {error}") from None


def _id(data: Any, *fields: str) -> str:
    """Return the id that an event is about: OWT's portal says it plainly or in an object."""
    if isinstance(data, dict):
        return next((str(data[name]) for name in fields if name in data), "")
    return str(data)


def _first(group: BaseExceptionGroup[PortalClosedError]) -> PortalClosedError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
