"""A track that comes from another cluster: pulled once, handed to everybody here who wants it.

On OWT's wire the frames come on the track's stream, on our own as datagrams of the connection.

The track outlives its stream: when the connection goes, or another one leads to it, it is pulled again. It
decides nothing about who may have it and speaks to no node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from msgspec import structs

from bridges.codes import CloseCode
from bridges.internal.wishes import RateWishes
from bridges.media.carriage import Quality
from bridges.media.figures import Moved
from bridges.media.own.layers import Dependencies
from bridges.media.pieces import Piece, fresh
from bridges.media.session import PullerSession, State
from bridges.quic import ConnectionClosedError, TooManyStreamsError
from bridges.wire.errors import SequenceError, WireError
from bridges.wire.frame import Feedback, FeedbackCommand, MediaFrame
from bridges.wire.framing import encode
from bridges.wire.messages import SubscribeOptions, TrackHello
from bridges.wire.objects import MediaOptions, TrackRequest
from causeway.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridges.media.carriage import Carriage
    from bridges.media.connection import MediaConnection, TrackStream
    from bridges.media.settings import MediaSettings

__all__ = ["Output", "PulledTrack"]

_log: Final = structlog.get_logger(__name__)

_MAX_FEEDBACK_BACKLOG: Final = 16 << 10


class Output(Protocol):
    """Somebody who gets the frames."""

    @property
    def dropped(self) -> int:
        """Frames that did not go on from there."""

    @property
    def backlog(self) -> int:
        """Bytes that wait there."""

    def write(self, piece: Piece) -> None:
        """Take what has come."""

    def close(self) -> None:
        """Take nothing more."""


class PulledTrack:
    """One track of the cluster `peer`, for the subscription `session`.

    `connection` returns the connection to pull over, None while there is none; call `attach` when there is
    one again, or another one. It may lead to a neighbour of ours that passes the track on; `hops` are the
    clusters that a request for it has come by before us.
    """

    def __init__(
        self,
        request: TrackRequest,
        *,
        cluster: str,
        peer: str,
        room: str,
        session: str,
        origin_type: str,
        hops: Sequence[str] = (),
        connection: Callable[[], MediaConnection | None],
        settings: MediaSettings,
    ) -> None:
        self.id: Final = request.id
        self.kind: Final = request.type
        self.peer: Final = peer
        self.room: Final = room
        self._hello = TrackHello(id=request.id, kind=request.type)
        self._options = SubscribeOptions(
            room=room,
            cluster=cluster,
            connection_id=f"quic-{session}-{request.id}",
            media=MediaOptions(tracks=[request]),
            origin_type=origin_type,
        )
        self._hops = [*hops, cluster]
        self._connection = connection
        self._settings = settings
        self._backoff = Backoff(base=settings.redial_base, cap=settings.redial_cap)
        self._stream: TrackStream | None = None
        self._session: PullerSession | None = None
        self._carriage: Carriage | None = None
        self._alias: int | None = None
        """Of the datagrams that `_carriage` brings."""
        self._dependencies = Dependencies()
        self._rates = RateWishes()
        self._decodable = False
        self._key_frame_wanted = False
        self._asking: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._outputs: list[Output] = []
        self._dropped = 0
        self.via = peer
        """Who it is, or was last, pulled from: the peer, or a neighbour on the way to it."""
        self.frames = 0
        """Frames that came and went on to whoever wants them."""
        self.bytes = 0
        """Bytes of these frames, headers included."""
        self.key_frame_requests = 0
        """Requests that went to the peer."""

    @property
    def idle(self) -> bool:
        """Whether nobody wants it."""
        return not self._outputs

    def add_output(self, output: Output) -> None:
        """Hand the frames to one more; a decoder has to start anew there."""
        self._outputs.append(output)
        if self.kind == "video" and self._flowing:
            self._want_key_frame()

    def remove_output(self, output: Output) -> None:
        """Hand no more frames to one, and close it."""
        if output in self._outputs:
            self._outputs.remove(output)
            self._dropped += output.dropped
            self._ask_for(self._rates.forget(self._loop.time(), output))
        output.close()

    def attach(self) -> None:
        """Pull over the connection that there is, unless the track is being pulled from that peer."""
        connection = self._connection()
        if self._closed or connection is None:
            return
        if self._stream is not None:
            former = self._stream.connection
            if former.up and former.peer == connection.peer:
                return
            _log.info("track.rerouted", track=self.id, peer=self.peer, via=connection.peer)
            self._leave_stream()
        self._cancel(self._retry)
        self._options = structs.replace(
            self._options,
            origin=None if connection.peer == self.peer else self.peer,
            hops=[] if connection.peer == self.peer else self._hops,
        )
        self.via = connection.peer
        try:
            self._open(connection)
        except (TooManyStreamsError, ConnectionClosedError, ValueError) as error:
            self._again(str(error))
            return
        assert self._stream is not None
        self._session = PullerSession(
            self._hello, self._options, max_frame_bytes=self._settings.max_frame_bytes
        )
        self._decodable = self.kind != "video"
        self._deadline = self._loop.call_later(self._settings.hello_timeout, self._unanswered)
        self._stream.send(self._session.data_to_send())

    def _open(self, connection: MediaConnection) -> None:
        """Expect datagrams, if they come as such, and open the stream that says so.

        Raises TooManyStreamsError, ConnectionClosedError, and ValueError for too many tracks.
        """
        carriage, alias = connection.carriage, None
        if carriage is not None:
            alias = carriage.expect(self, sound=self.kind != "video")
        try:
            self._stream = connection.open_track(self)
        except BaseException:
            if carriage is not None and alias is not None:
                carriage.forget(alias)
            raise
        self._carriage, self._alias = carriage, alias
        self._options = structs.replace(self._options, alias=alias)

    def close(self) -> None:
        """Stop pulling."""
        self._closed = True
        self._cancel(self._retry)
        self._leave_stream()

    @property
    def moved(self) -> Moved:
        """What has come so far."""
        return Moved(
            incoming=True,
            frames=self.frames,
            bytes=self.bytes,
            dropped=self._all_dropped,
            waiting=self._waiting,
        )

    def stats(self) -> dict[str, Any]:
        """Return the figures of this track, as getStats shows them."""
        return {
            "id": self.id,
            "room": self.room,
            "peer": self.peer,
            "direction": "in",
            "kind": self.kind,
            "frames": self.frames,
            "bytes": self.bytes,
            "dropped_frames": self._all_dropped,
            "key_frame_requests": self.key_frame_requests,
            "waiting_bytes": self._waiting,
            "asked_kbps": self._rates.least(self._loop.time()),
            **self._quality._asdict(),
        }

    @property
    def _waiting(self) -> int:
        return sum(output.backlog for output in self._outputs)

    @property
    def _all_dropped(self) -> int:
        missed = self._quality.missed_frames
        return self._dropped + missed + sum(output.dropped for output in self._outputs)

    @property
    def _quality(self) -> Quality:
        """How frames come, of those that are datagrams."""
        if self._carriage is None or self._alias is None:
            return Quality()
        return self._carriage.quality(self._alias)

    # What the stream says.

    def data(self, data: bytes, *, end: bool) -> None:
        """Take bytes of the stream."""
        stream, session = self._stream, self._session
        assert stream is not None
        assert session is not None
        session.feed(data)
        try:
            while self._stream is stream and (event := session.next_event()) is not None:
                if isinstance(event, MediaFrame):
                    self._take(fresh(event, self._loop.time(), self._dependencies))
                else:
                    self._answered(stream, session)
        except WireError as error:
            self._give_up(str(error), error.code)
            return
        if end and self._stream is stream:
            self._detach()
            stream.finish()
            self._again("the peer ended the track")

    def ended(self, reason: str) -> None:
        """Take note that the stream is gone."""
        self._detach()
        self._again(reason)

    def _answered(self, stream: TrackStream, session: PullerSession) -> None:
        self._cancel(self._deadline)
        stream.send(session.data_to_send())
        if self.kind == "video":
            self._want_key_frame()

    # What comes as datagrams.

    def piece(self, piece: Piece) -> None:
        """Take a frame."""
        if piece.frame.is_video == (self.kind == "video"):
            self._take(piece)
        else:
            self._give_up(
                f"a frame of format {piece.frame.format} on a track of {self.kind}", SequenceError.code
            )

    def key_frame_lacks(self) -> None:
        """Ask for a key frame."""
        self._want_key_frame()

    def _take(self, piece: Piece) -> None:
        frame = piece.frame
        if self.kind == "video" and frame.key_frame:
            self._decodable = True
            self._key_frame_wanted = False
        if not self._decodable:
            self._dropped += 1
            return
        self._backoff.reset()
        self.frames += 1
        self.bytes += len(frame.raw)
        for output in list(self._outputs):
            output.write(piece)

    # Key frames

    def asked(self, feedback: Feedback, output: Output) -> None:
        """Take what one of those who want the track, or its gate, asks of its source.

        Of the rates that they ask for the least goes on: there is one source for all, and no other way.
        """
        if feedback.command is FeedbackCommand.REQUEST_KEY_FRAME:
            if self.kind == "video":
                self._want_key_frame()
        elif feedback.command is FeedbackCommand.SET_BITRATE:
            self._ask_for(self._rates.ask(self._loop.time(), output, feedback.kbps))
        elif self._flowing:
            self._send(feedback)

    def _ask_for(self, kbps: int | None) -> None:
        """Ask the source for a rate; None: nothing."""
        if kbps is not None and self._flowing:
            self._send(Feedback.set_bitrate(kbps))

    def _want_key_frame(self) -> None:
        """Ask for a key frame, now or when the interval is over, until one has come."""
        self._key_frame_wanted = True
        if self._asking is None:
            self._ask()

    def _ask(self) -> None:
        self._asking = None
        # Before the peer's answer nothing may be sent; the answer asks by itself.
        if not self._key_frame_wanted or not self._flowing:
            return
        self._send(Feedback.request_key_frame())
        self.key_frame_requests += 1
        self._asking = self._loop.call_later(self._settings.key_frame_interval, self._ask)

    def _send(self, feedback: Feedback) -> None:
        if self._stream is not None and self._stream.backlog <= _MAX_FEEDBACK_BACKLOG:
            self._stream.send(encode(feedback))

    @property
    def _flowing(self) -> bool:
        return self._session is not None and self._session.state is State.FLOWING

    # Ends and new beginnings

    def _unanswered(self) -> None:
        self._deadline = None
        self._give_up("the peer does not answer", CloseCode.TIMED_OUT)

    def _give_up(self, reason: str, code: int) -> None:
        stream = self._detach()
        if stream is not None:
            stream.reset(code)
        self._again(reason)

    def _leave_stream(self) -> None:
        stream = self._detach()
        if stream is not None:
            stream.reset()

    def _detach(self) -> TrackStream | None:
        self._cancel(self._asking)
        self._cancel(self._deadline)
        self._asking = self._deadline = None
        self._dropped += self._quality.missed_frames
        if self._carriage is not None and self._alias is not None:
            self._carriage.forget(self._alias)
        self._carriage = self._alias = None
        stream, self._stream, self._session = self._stream, None, None
        return stream

    def _again(self, reason: str) -> None:
        """Pull again a little later; without a connection by then, the next one will call `attach`."""
        if self._closed:
            return
        delay = self._backoff.next_delay()
        _log.info("track.interrupted", track=self.id, peer=self.peer, reason=reason, retry_in=round(delay, 3))
        self._cancel(self._retry)
        self._retry = self._loop.call_later(delay, self.attach)

    def _cancel(self, handle: asyncio.TimerHandle | None) -> None:
        if handle is not None:
            handle.cancel()
