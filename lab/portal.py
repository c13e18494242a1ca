"""The portal: clients over a WebSocket. What may be said is in lab.portal_calls; this is the connection.

A client that is gone has left. A client that does not take its messages, says too much at once, or does not
join in time is disconnected; nothing here waits for one client while others wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from starlette.websockets import WebSocketDisconnect

from lab.closing import GOING_AWAY, NORMAL, POLICY_VIOLATION, TOO_BIG, TRY_AGAIN_LATER, close
from lab.portal_calls import CallError, PortalCalls
from lab.room_outputs import (
    ParticipantJoined,
    ParticipantLeft,
    StreamAdded,
    StreamRemoved,
    StreamUpdated,
    SubscriptionEnded,
)
from lab.room_rules import RoomError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.websockets import WebSocket

    from lab.portal_calls import Member, Request
    from lab.rooms import RoomNews, Rooms, RunningRoom
    from lab.settings import PortalSettings

__all__ = ["Portal"]

_log: Final = structlog.get_logger(__name__)


class Portal:
    """Serves clients, and tells them what happens in their rooms (a listener of Rooms)."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        calls: PortalCalls,
        settings: PortalSettings,
        look_up: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Take the parts; `look_up` is awaited with a joining client's token before it is checked."""
        self.rooms = rooms
        self.calls = calls
        self.look_up = look_up
        self.settings = settings
        self._clients: set[_Client] = set()
        self._by_room: dict[str, dict[str, _Client]] = {}

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one client's WebSocket until it ends."""
        if len(self._clients) >= self.settings.max_clients:
            await close(websocket, TRY_AGAIN_LATER, "the portal is full")
            return
        client = _Client(self, websocket)
        self._clients.add(client)
        try:
            await websocket.accept()
            await client.run()
        except WebSocketDisconnect:
            return  # It went before it was accepted.
        finally:
            self._clients.discard(client)
            client.leave()
        await close(websocket, *client.verdict)

    def seat(self, client: _Client, member: Member) -> None:
        """Tell `client` from now on what happens in its room."""
        self._by_room.setdefault(member.room, {})[member.participant] = client

    def unseat(self, member: Member) -> None:
        """Tell it no more."""
        seats = self._by_room.get(member.room, {})
        seats.pop(member.participant, None)
        if not seats:
            self._by_room.pop(member.room, None)

    def hear(self, running: RunningRoom, news: RoomNews) -> None:
        """Follow what happens in a room; see Rooms.listeners."""
        seats = self._by_room.get(running.room.id)
        if not seats:
            return
        match news:
            case ParticipantJoined(participant):
                self._tell(seats, "participantJoined", participant)
            case ParticipantLeft(id_):
                if (gone := seats.get(id_)) is not None:
                    gone.end(GOING_AWAY, "removed from the room")
                self._tell(seats, "participantLeft", {"id": id_})
            case StreamAdded(stream):
                self._tell(seats, "streamAdded", stream)
            case StreamUpdated(stream):
                self._tell(seats, "streamUpdated", stream)
            case StreamRemoved(id_):
                self._tell(seats, "streamRemoved", {"id": id_})
            case SubscriptionEnded(key) if not (news.asked or key.by_bridge):
                if (client := seats.get(key.owner)) is not None:
                    client.push("subscriptionEnded", {"subscription": key.id, "reason": news.reason})
            case _:
                pass

    def _tell(self, seats: dict[str, _Client], event: str, data: Any) -> None:
        text = _event(event, data)
        for client in seats.values():
            client.send(text)


class _Client:
    """One connection: nobody, then a member of a room, then gone."""

    def __init__(self, portal: Portal, websocket: WebSocket) -> None:
        self._portal = portal
        self._websocket = websocket
        # None ends the writer; there is always room for it beyond the limit of messages.
        self._unsent: asyncio.Queue[str | None] = asyncio.Queue(portal.settings.max_unsent + 1)
        self._ended = asyncio.Event()
        self._member: Member | None = None
        self.verdict: tuple[int, str] = (NORMAL, "")
        """The close code and reason."""

    async def run(self) -> None:
        """Serve until the client is gone or has to go."""
        tasks = [asyncio.ensure_future(part) for part in (self._read(), self._write(), self._ended.wait())]
        deadline = asyncio.get_running_loop().call_later(self._portal.settings.join_timeout, self._too_late)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
            self._ended.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    def push(self, event: str, data: Any) -> None:
        """Tell this client about something."""
        self.send(_event(event, data))

    def send(self, text: str) -> None:
        """Queue a message; a client that does not take them is disconnected."""
        if self._unsent.qsize() < self._portal.settings.max_unsent:
            self._unsent.put_nowait(text)
        else:
            self.end(POLICY_VIOLATION, "too slow: messages are not taken")

    def end(self, code: int, reason: str) -> None:
        """Have the connection closed; the first reason counts."""
        if not self._ended.is_set():
            self.verdict = (code, reason)
            self._ended.set()

    def leave(self) -> None:
        """Leave the room, unless that has been done."""
        member, self._member = self._member, None
        if member is None:
            return
        self._portal.unseat(member)
        try:
            self._portal.rooms.act(member.room, lambda room: room.leave(member.participant))
        except RoomError as error:
            _log.debug("portal.already_out", reason=error.reason)

    async def _read(self) -> None:
        while True:
            try:
                text = await self._websocket.receive_text()
            except (WebSocketDisconnect, RuntimeError, KeyError):
                # RuntimeError: a send has just found out. KeyError: a binary message, which means nothing.
                return
            if len(text) > self._portal.settings.max_message_bytes:
                self.end(TOO_BIG, "the message is too large")
                return
            if not await self._serve(text):
                self._unsent.put_nowait(None)  # the writer ends when everything before is out
                await self._ended.wait()

    async def _write(self) -> None:
        try:
            while (text := await self._unsent.get()) is not None:
                await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:
            # Starlette raises RuntimeError for sending after the other side has gone.
            _log.debug("portal.gone", reason=str(error))

    async def _serve(self, text: str) -> bool:
        """Answer one message; return whether to go on."""
        request: Request | None = None
        try:
            request = self._portal.calls.read(text)
            if request.method == "join" and self._member is None and self._portal.look_up is not None:
                await self._portal.look_up(str(request.params.get("token", "")))
            data = self._call(request)
        except CallError as error:
            told = {"code": error.reason, "message": str(error)}
            self._answer({"id": request.id if request else None, "ok": False, "error": told})
            return request is not None
        self._answer({"id": request.id, "ok": True, "data": data})
        return request.method != "leave"

    def _call(self, request: Request) -> Any:
        member = self._member
        if request.method == "join":
            if member is not None:
                raise CallError("already-joined", "this connection has joined")
            self._member, data = self._portal.calls.join(request.params)
            self._portal.seat(self, self._member)
            return data
        if member is None:
            raise CallError("not-joined", "join first")
        if request.method == "leave":
            self.leave()
            return {}
        remote = self._websocket.client
        return self._portal.calls.serve(member, request, remote=remote.host if remote is not None else "")

    def _answer(self, answer: Any) -> None:
        self.send(msgspec.json.encode(answer).decode())

    def _too_late(self) -> None:
        if self._member is None:
            self.end(POLICY_VIOLATION, "join first")


def _event(event: str, data: Any) -> str:
    return msgspec.json.encode({"event": event, "data": data}).decode()
