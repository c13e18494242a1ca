"""One agent's channel: what it says goes to the registry, what the registry says goes to it.

Two tasks: one hears the agent, message after message, so an agent that says more than the registry can take
is slowed down by its own socket; the other one waits for notices and tells what has changed. The channel ends
with its socket, when another channel speaks for the agent, when the registration is over, when the key is
not valid any more, or when the agent does not take its messages in time. A database that does not answer
ends it, too: the agent acts on what it has, comes back, and both sides say everything anew.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import structlog

from causeway.channel import (
    Ack,
    Figures,
    Goodbye,
    Heartbeat,
    Hello,
    LeaseRenewed,
    LinkState,
    MessageError,
    Refuse,
    Report,
    Resync,
    Unknown,
    decode_from_agent,
    encode,
)
from control.agents.telling import Telling
from control.errors import AgentUnknownError, DatabaseUnavailableError, StaleEpochError
from control.registry import agent_channels, desired, figures

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from causeway.channel import FromControl
    from control.agent_settings import AgentSettings
    from control.agents.channels import Waker
    from control.agents.desired import DesiredStates
    from control.bell import Bell
    from control.registry.agent_channels import Hold
    from control.registry.store import Store

__all__ = ["Parts", "Session", "Socket"]

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 100
"""Links whose states are written in one transaction."""
_STOP_TIMEOUT: Final = 2.0
"""Seconds for the last words, and for noting that the channel is gone."""
_COME_BACK: Final = 1.0
"""Seconds after which an agent may try again when the database does not answer."""


class Socket(Protocol):
    """The WebSocket, accepted."""

    async def receive(self) -> str | bytes | None:
        """Return the next frame's content, None when the agent is gone."""
        ...

    async def send(self, text: str) -> None:
        """Send a text frame; waits while the agent does not read. Does nothing when the agent is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every session of a replica works with."""

    store: Store
    states: DesiredStates
    bell: Bell
    settings: AgentSettings


class _OverError(Exception):
    """The channel ends; `goodbye` None: the agent is gone, or not to be talked to any more."""

    def __init__(self, reason: str, *, goodbye: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.goodbye = Goodbye(reason=reason, retry_after=retry_after) if goodbye else None


class Session:
    """A channel. `allowed` says whether the key that opened it is still valid."""

    def __init__(
        self,
        parts: Parts,
        agent: str,
        socket: Socket,
        waker: Waker,
        *,
        allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        self._store = parts.store
        self._states = parts.states
        self._bell = parts.bell
        self._settings = parts.settings
        self._agent = agent
        self._socket = socket
        self._waker = waker
        self._allowed = allowed
        self._id = uuid.uuid4()
        self._cluster = ""
        self._telling = Telling()
        self._tell_all = True
        self._sending = asyncio.Lock()
        self._log = _log.bind(agent=agent)
        self.unknown: Counter[str] = Counter()
        """Messages of types that are not known here, by type: the agent is newer."""

    async def run(self) -> None:
        """Serve the agent until the channel ends; the caller closes the socket."""
        try:
            await self._open()
            try:
                await self._serve()
            finally:
                await self._close()
        except _OverError as over:
            self._log.info("agent.disconnected", reason=over.reason, unknown=dict(self.unknown) or None)
            if over.goodbye is not None:
                with suppress(_OverError, TimeoutError):
                    async with asyncio.timeout(_STOP_TIMEOUT):
                        await self._say(over.goodbye)

    # --- begin and end ------------------------------------------------------------------------

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._settings.hello_timeout):
                hello = await self._next()
        except TimeoutError:
            raise _OverError("protocol") from None
        if not isinstance(hello, Hello):
            raise _OverError("protocol")
        try:
            speaker = await self._store.write(
                agent_channels.open_channel,
                self._agent,
                epoch=hello.epoch,
                channel=self._id,
                ttl=self._settings.ttl,
            )
        except (AgentUnknownError, StaleEpochError):
            raise _OverError("register") from None
        except DatabaseUnavailableError:
            raise _OverError("restarting", retry_after=_COME_BACK) from None
        self._cluster = speaker.cluster
        self._log.info("agent.connected", cluster=speaker.cluster, epoch=hello.epoch, has=hello.version)

    async def _serve(self) -> None:
        over: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear())
                group.create_task(self._tell())
        except* _OverError as ended:
            over += ended.exceptions
        except* DatabaseUnavailableError:
            over.append(_OverError("restarting", retry_after=_COME_BACK))
        raise over[0]

    async def _close(self) -> None:
        # If this fails the agent is shown as connected until its lease runs out, or its next channel opens.
        with suppress(DatabaseUnavailableError, TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._store.write(agent_channels.close_channel, self._agent, channel=self._id)

    # --- what the agent says ------------------------------------------------------------------

    async def _hear(self) -> NoReturn:
        while True:
            match await self._next():
                case Heartbeat() as beat:
                    await self._beat(beat)
                case Ack(version=version):
                    await self._acked(version)
                case Refuse() as refusal:
                    await self._refused(refusal)
                case Report() as report:
                    await self._reported(report)
                case Figures(bridges=bridges):
                    self._check(
                        await self._store.write(
                            figures.keep, self._agent, self._cluster, channel=self._id, bridges=bridges
                        )
                    )
                case Resync():
                    self._tell_all = True
                    self._waker.look_at_everything()
                case Unknown(type=kind):
                    # Bounded, whatever the agent makes up.
                    self.unknown[kind if len(self.unknown) < _AT_ONCE else "…"] += 1
                case Hello():
                    raise _OverError("protocol")

    async def _beat(self, beat: Heartbeat) -> None:
        kept = await self._store.write(
            agent_channels.beat,
            self._agent,
            channel=self._id,
            ttl=self._settings.ttl,
            load=beat.load,
            measured=beat.round_trips,
        )
        if not kept:
            await self._ensure_held()
        await self._say(LeaseRenewed(ttl=self._settings.ttl))

    async def _acked(self, version: int) -> None:
        kept = await self._store.write(
            agent_channels.acked, self._agent, channel=self._id, version=version, refused=()
        )
        if not kept:
            await self._ensure_held()

    async def _refused(self, refusal: Refuse) -> None:
        self._log.warning(
            "agent.refused",
            version=refusal.version,
            problems=len(refusal.problems),
            first=refusal.problems[0].reason if refusal.problems else None,
        )
        kept = await self._store.write(
            agent_channels.acked,
            self._agent,
            channel=self._id,
            version=refusal.version,
            refused=refusal.problems,
        )
        if not kept:
            await self._ensure_held()
        reasons = {(each.conference, each.peer): each.reason for each in refusal.problems}
        seen: list[LinkState] = []
        for known in await self._known({each.conference for each in refusal.problems}):
            reason = reasons.get((known.conference, known.peer)) or reasons.get((known.conference, None))
            if reason is not None and known.state in {"requested", "up"}:
                seen.append(_down(known.conference, known.peer, reason))
        await self._write(seen)

    async def _reported(self, report: Report) -> None:
        known = await self._known(None if report.full else {each.conference for each in report.links})
        states = {(each.conference, each.peer): each.state for each in known}
        said = {(each.conference, each.peer): each for each in report.links}
        seen = [each for link, each in said.items() if states.get(link) not in {None, each.state}]
        if report.full:
            seen += [
                _down(*link, "the agent does not have it")
                for link, state in states.items()
                if state == "up" and link not in said
            ]
        await self._write(seen)

    async def _known(self, conferences: Collection[str] | None) -> list[desired.Known]:
        return await self._store.read(desired.known, self._agent, conferences=conferences)

    async def _write(self, seen: Sequence[LinkState]) -> None:
        for start in range(0, len(seen), _AT_ONCE):
            batch = seen[start : start + _AT_ONCE]
            self._check(await self._store.write(self._report, batch))
            for conference in {each.conference for each in batch}:
                self._bell.ring(conference)

    async def _report(self, connection: AsyncConnection, seen: Iterable[LinkState]) -> Hold:
        hold = await agent_channels.held(connection, self._agent, channel=self._id)
        if hold == "held":
            await desired.report(connection, self._cluster, seen)
        return hold

    # --- what the agent is told ---------------------------------------------------------------

    async def _tell(self) -> NoReturn:
        # It must hear everything first; notices from now on are for later.
        changed: Collection[str] | None = None
        while True:
            await self._tell_of(changed)
            changed, look = await self._waker.wait(self._settings.poll_interval)
            if look:
                await self._ensure_held()
                if not await self._allowed():
                    raise _OverError("register")

    async def _tell_of(self, changed: Collection[str] | None) -> None:
        if self._tell_all:
            self._tell_all = False
            state, _ = await self._states.read(self._agent)
            await self._say(self._telling.everything(await self._next_version(), state))
            return
        state, among = await self._states.read(self._agent, conferences=changed)
        change = self._telling.compare(state, among=among)
        if change is not None:
            await self._say(self._telling.tell(await self._next_version(), change))

    async def _next_version(self) -> int:
        version = await self._store.write(agent_channels.next_version, self._agent, channel=self._id)
        if version is None:
            await self._ensure_held()
            raise _OverError("register")
        return version

    # --- both ---------------------------------------------------------------------------------

    async def _next(self) -> object:
        frame = await self._socket.receive()
        if frame is None:
            raise _OverError("gone", goodbye=False)
        try:
            return decode_from_agent(frame)
        except MessageError as error:
            self._log.warning("agent.message_wrong", error=str(error))
            raise _OverError("protocol") from None

    async def _say(self, message: FromControl) -> None:
        try:
            async with asyncio.timeout(self._settings.send_timeout), self._sending:
                await self._socket.send(encode(message))
        except TimeoutError:
            raise _OverError("slow", goodbye=False) from None

    async def _ensure_held(self) -> None:
        self._check(await self._store.write(agent_channels.held, self._agent, channel=self._id))

    def _check(self, hold: Hold) -> None:
        if hold != "held":
            raise _OverError(hold)


def _down(conference: str, peer: str, error: str) -> LinkState:
    return LinkState(conference=conference, peer=peer, state="down", error=error)
