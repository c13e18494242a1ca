"""Ends whose own cost is not what is measured: internal transport without TCP, and the kernel's time.

`replaced` puts it in the place of bridges.internal in one process, where tracks then go from cameras to the
bridge, and from the bridge to who takes them, by a call. No limits, no gates, and nothing is ever lost. And
`arrived` tells there when the kernel had the datagram that brought what is being taken, however late this
process came to it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import bridges.media.bridge
import bridges.media.push
from bridges.quic import Connection
from bridges.wire.frame import Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridges.wire.frame import MediaFrame

__all__ = ["DirectListener", "DirectReceiver", "arrived", "replaced"]

_LISTENERS: Final[dict[int, DirectListener]] = {}
"""By port; these ports are nobody's but ours."""


_came: float | None = None
"""When the datagram came that is being taken, in seconds of CLOCK_MONOTONIC; None: none is."""


def arrived() -> int:
    """Return when what is being taken arrived, in nanoseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns() if _came is None else round(_came * 1e9)


def _noting_when(take: Callable[[Connection, bytes, Any, float], None]) -> Any:
    def datagram_received(connection: Connection, data: bytes, address: Any, now: float) -> None:
        global _came  # noqa: PLW0603 - a process has one loop, which takes one datagram at a time
        _came = now
        try:
            take(connection, data, address, now)
        finally:
            _came = None

    return datagram_received


@contextmanager
def replaced() -> Iterator[None]:
    """Let this process's bridges use it until the end of the block."""
    with (
        patch.object(bridges.media.bridge, "InternalListener", DirectListener),
        patch.object(bridges.media.push, "InternalReceiver", DirectReceiver),
        patch.object(Connection, "datagram_received", _noting_when(Connection.datagram_received)),
    ):
        yield


class DirectSource:
    """As bridges.internal.listener.Source."""

    def __init__(
        self,
        listener: DirectListener,
        source_id: str,
        on_feedback: Callable[[Feedback], None] | None,
        on_joined: Callable[[int], None] | None,
    ) -> None:
        self._listener = listener
        self._on_feedback = on_feedback
        self._on_joined = on_joined
        self._receivers: list[DirectReceiver] = []
        self.id = source_id
        self.backlog = self.dropped = 0

    @property
    def subscribers(self) -> int:
        """How many take it."""
        return len(self._receivers)

    def write(self, frame: MediaFrame) -> None:
        """Give a frame to all."""
        for receiver in self._receivers:
            receiver.on_frame(frame)

    def close(self) -> None:
        """End it for all."""
        self._listener.sources.pop(self.id, None)
        for receiver in list(self._receivers):
            receiver.on_lost("the source ended the connection")
        self._receivers.clear()

    def join(self, receiver: DirectReceiver) -> None:
        """Add somebody."""
        self._receivers.append(receiver)
        if self._on_joined is not None:
            self._on_joined(len(self._receivers))

    def leave(self, receiver: DirectReceiver) -> None:
        """Remove somebody."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)

    def ask(self, feedback: Feedback) -> None:
        """Pass feedback on."""
        if self._on_feedback is not None:
            self._on_feedback(feedback)


class DirectListener:
    """As bridges.internal.listener.InternalListener."""

    def __init__(self) -> None:
        self.port = 1 + len(_LISTENERS)
        self.sources: dict[str, DirectSource] = {}
        self.changed = asyncio.Event()
        _LISTENERS[self.port] = self

    @classmethod
    async def start(cls, host: str = "", port: int = 0, *, settings: Any = None) -> DirectListener:
        """Return one."""
        del host, port, settings
        return cls()

    def add_source(
        self,
        source_id: str,
        *,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_joined: Callable[[int], None] | None = None,
        on_left: Callable[[int], None] | None = None,
    ) -> DirectSource:
        """Offer a source."""
        del on_left
        source = self.sources[source_id] = DirectSource(self, source_id, on_feedback, on_joined)
        self.changed.set()
        return source

    async def close(self) -> None:
        """End all sources."""
        for source in list(self.sources.values()):
            source.close()


class DirectReceiver:
    """As bridges.internal.receiver.InternalReceiver."""

    def __init__(
        self,
        source: DirectSource,
        on_frame: Callable[[MediaFrame], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._source = source
        self.on_frame = on_frame
        self.on_lost = on_lost

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        stream_id: str,
        *,
        on_frame: Callable[[MediaFrame], None],
        on_lost: Callable[[str], None],
        settings: Any = None,
    ) -> DirectReceiver:
        """Wait for the source, and take it."""
        del host, settings
        listener = _LISTENERS[port]
        while (source := listener.sources.get(stream_id)) is None:
            listener.changed.clear()
            await listener.changed.wait()
        receiver = cls(source, on_frame, on_lost)
        source.join(receiver)
        return receiver

    def send(self, feedback: Feedback) -> None:
        """Tell the source something."""
        self._source.ask(feedback)

    def request_key_frame(self) -> None:
        """Ask the source for a key frame."""
        self._source.ask(Feedback.request_key_frame())

    def close(self) -> None:
        """Take no more."""
        self._source.leave(self)
