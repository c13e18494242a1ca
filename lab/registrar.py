"""Tells control about this cluster: registration, heartbeats, and what happens in its rooms.

Control being away changes nothing here: the cluster goes on, statements wait (lab.report_queue), and are told
when it is back. A control that does not know the registration any more is given it again, with everything.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog

from causeway.api import BridgeAddress, ClusterRegistration, Load, ParticipantReport, RoomReport
from causeway.backoff import Backoff
from causeway.errors import ApiError, CausewayError, UnavailableError
from lab import stream_reports
from lab.report_queue import Report, ReportQueue, Resource
from lab.room_outputs import (
    LinkDown,
    LinkUp,
    ParticipantJoined,
    ParticipantLeft,
    StreamAdded,
    StreamRemoved,
    StreamUpdated,
)
from lab.rooms import RoomClosed, RoomOpened
from lab.rpc_socket import RpcFailedError, RpcLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from causeway.api import Lease, PortalAddress
    from causeway.client import ControlClient
    from lab.rooms import RoomNews, RunningRoom
    from lab.settings import LabSettings
    from lab.workers import Worker, Workers

__all__ = ["ALWAYS_THERE", "Registrar"]

_log: Final = structlog.get_logger(__name__)

ALWAYS_THERE: Final = ("conference", "portal", "webrtc")
"""Modules of every lab cluster; those of bridges come and go with them."""
_RETRY_STATUSES: Final = frozenset({401, 403, 408, 425, 429})


class _RegisterAgainError(CausewayError):
    """Control does not accept the lease's epoch, or the registration has to change."""

    def __init__(self, *, forgotten: bool) -> None:
        super().__init__("register again")
        self.forgotten = forgotten


class Registrar:
    """Keeps control informed while `run` runs. A listener of Rooms."""

    def __init__(
        self,
        client: ControlClient,
        *,
        settings: LabSettings,
        workers: Workers,
        rest_url: Callable[[], str],
        portal: Callable[[], PortalAddress],
        load: Callable[[], tuple[int, int]],
    ) -> None:
        """Take the parts; `load` gives the counts of local participants and streams."""
        self._client = client
        self._settings = settings
        self._cluster = settings.cluster
        self._workers = workers
        self._rest_url = rest_url
        self._portal = portal
        self._load = load
        self._queue = ReportQueue(limit=settings.registrar.max_pending)
        self._work = asyncio.Event()
        self._bridges_changed = asyncio.Event()
        self._addresses: dict[str, BridgeAddress] = {}
        self._lease: Lease | None = None
        self._number = 0
        """Of the last request: of two that control carries out, the one with the larger number counts."""
        self.unknown: list[Callable[[str], None]] = []
        """Called with a room that control does not know, though it was told of it."""
        self.incarnation = secrets.token_hex(16)
        """Drawn at each start, and anew when control's picture is beyond repair."""
        for module in ALWAYS_THERE:
            self._queue.put(Resource("capacity", name=module))
        workers.on_joined.append(self._worker_joined)
        workers.on_lost.append(self._worker_lost)

    @property
    def lease(self) -> Lease | None:
        """The lease that control granted last; None before the first, and after it was found void."""
        return self._lease

    # --- what is to be told -----------------------------------------------------------------------

    def hear(self, running: RunningRoom, news: RoomNews) -> None:
        """Follow what happens in rooms; see Rooms.listeners."""
        room_id = running.room.id
        match news:
            case RoomOpened(token):
                self._queue.put(Resource("room", room_id), token)
            case RoomClosed():
                self._queue.close_room(room_id)
            case ParticipantJoined(participant) if not participant.cascading:
                resource = Resource("participant", room_id, participant.id)
                self._queue.put(resource, participant.user, participant.role)
            case ParticipantLeft(id_, local=True):
                self._queue.remove(Resource("participant", room_id, id_))
            case StreamAdded(stream) | StreamUpdated(stream) if stream.cluster == self._cluster:
                self._queue.put(Resource("stream", room_id, stream.id), stream_reports.text_of(stream))
            case StreamRemoved(id_):  # of another cluster: never told, nothing to take back
                self._queue.remove(Resource("stream", room_id, id_))
            case LinkUp(peer):
                self._queue.put(Resource("link", room_id, peer))
            case LinkDown(peer):
                self._queue.remove(Resource("link", room_id, peer))
            case _:
                return
        self._work.set()

    def link_ordered(self, room: str, peer: str) -> None:
        """Tell a link anew if it is up: whoever orders one that there is waits to hear of it."""
        resource = Resource("link", room, peer)
        if self._queue.states(resource):
            self._queue.put(resource)
            self._work.set()

    def room_missing(self, room: str, placement: int) -> None:
        """Tell that somebody came with a token for the room of this placement, and there is none."""
        self._queue.say_once(Resource("missing", room), str(placement))
        self._work.set()

    def _worker_joined(self, worker: Worker) -> None:
        self._queue.put(Resource("capacity", name=worker.purpose))
        self._work.set()
        self._bridges_changed.set()

    def _worker_lost(self, worker: Worker) -> None:
        if self._workers.newest(worker.purpose) is None:
            self._queue.remove(Resource("capacity", name=worker.purpose))
            self._work.set()
        self._bridges_changed.set()

    # --- telling ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Register, then beat and report, for ever; ends by being cancelled."""
        backoff = self._backoff()
        while True:
            try:
                registered = await self._register()
                backoff.reset()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._beat())
                    tasks.create_task(self._tell())
                    tasks.create_task(self._follow_bridges(registered))
            except* _RegisterAgainError as group:
                again = group.exceptions[0]
                if isinstance(again, _RegisterAgainError) and again.forgotten:
                    _log.warning("registration.void", cluster=self._cluster)
                    self._lease = None
                    self._queue.tell_anew()
                    await asyncio.sleep(backoff.next_delay())
            except* (ApiError, UnavailableError) as group:
                _log.warning("registration.failed", error=str(group.exceptions[0]))
                await asyncio.sleep(backoff.next_delay())

    async def stop(self) -> None:
        """Take the registration back, if control can be reached in time."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            async with asyncio.timeout(self._settings.registrar.stop_timeout):
                await self._client.unregister_cluster(self._cluster, epoch=lease.epoch)
        except (ApiError, UnavailableError, TimeoutError) as error:
            _log.warning("registration.not_taken_back", error=str(error) or "no answer in time")

    async def _register(self) -> dict[str, BridgeAddress]:
        """Put the registration; return the bridges' addresses in it. Raises ApiError, UnavailableError."""
        if self._queue.overflowed:
            self.incarnation = secrets.token_hex(16)
            self._queue.start_afresh()
        self._bridges_changed.clear()
        await self._ask_addresses()
        registered = dict(self._addresses)
        registration = ClusterRegistration(
            region=self._settings.region,
            rest_url=self._rest_url(),
            service_id=self._settings.service_id,
            service_key=self._settings.service_key,
            instance=self._settings.instance,
            incarnation=self.incarnation,
            event_bridge=registered.get("eventbridge"),
            media_bridge=registered.get("mediabridge"),
            driver=self._settings.driver,
            portal=self._portal(),
        )
        former = self._lease
        self._lease = await self._client.register_cluster(
            self._cluster, registration, number=self._next_number()
        )
        if former is not None and former.epoch != self._lease.epoch:
            self._queue.tell_anew()
        self._work.set()
        _log.info("registration.done", cluster=self._cluster, epoch=self._lease.epoch)
        return registered

    async def _ask_addresses(self) -> bool:
        """Find out where the bridges listen; return whether every one that is there has said so."""
        complete = True
        for purpose in ("eventbridge", "mediabridge"):
            worker = self._workers.newest(purpose)
            if worker is None:
                continue  # Its old address stays: it comes back with a new one, which is what matters.
            try:
                self._addresses[purpose] = await worker.address()
            except (RpcFailedError, RpcLostError) as error:
                _log.warning("registration.bridge_silent", worker=worker.id, error=str(error))
                complete = False
        return complete

    async def _beat(self) -> None:
        assert self._lease is not None
        interval = self._lease.heartbeat_interval
        while True:
            await asyncio.sleep(interval)
            participants, streams = self._load()
            load = Load(participants=participants, streams=streams, cpu=_cpu())
            try:
                lease = await self._client.heartbeat(self._cluster, epoch=self._lease.epoch, load=load)
            except UnavailableError as error:
                _log.warning("heartbeat.failed", error=str(error))
                continue  # The next one is due soon, and no sooner: control is not to be hammered.
            except ApiError as error:
                if self._refused(error):
                    raise _RegisterAgainError(forgotten=True) from None
                _log.warning("heartbeat.refused", error=str(error))
                continue
            self._lease = lease
            interval = lease.heartbeat_interval

    async def _tell(self) -> None:
        backoff = self._backoff()
        while True:
            if self._queue.overflowed:
                raise _RegisterAgainError(forgotten=False)
            report = self._queue.next()
            if report is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                await self._tell_one(report)
            except ApiError as error:
                if self._refused(error):
                    raise _RegisterAgainError(forgotten=True) from None
                if not self._is_worth_another_try(error):
                    self._give_up(report, error)
                    continue
                _log.warning("report.failed", error=str(error))
            except UnavailableError as error:
                _log.warning("report.failed", error=str(error))
            else:
                self._queue.taken(report)
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next_delay())

    def _is_worth_another_try(self, error: ApiError) -> bool:
        return (
            error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or error.status in _RETRY_STATUSES
            or error.type == "report-superseded"  # somebody on the way has sent it twice
        )

    def _give_up(self, report: Report, error: ApiError) -> None:
        """Drop a report that will not be taken however often it is told."""
        _log.error("report.refused", report=repr(report), error=str(error))
        self._queue.taken(report)
        if error.type == "conference-unknown":
            for each in self.unknown:
                each(report.resource.room)

    async def _tell_one(self, report: Report) -> None:
        """Make the call that states `report`. Raises ApiError, UnavailableError."""
        assert self._lease is not None
        client, cluster, epoch = self._client, self._cluster, self._lease.epoch
        room, name, detail = report.resource.room, report.resource.name, report.detail
        # Drawn for each try: one that was given up and is carried out later must not count any more.
        number = self._next_number()
        match report.resource.kind, detail:
            case "capacity", None:
                await client.delete_capacity(cluster, name, epoch=epoch, number=number)
            case "capacity", _:
                await client.put_capacity(cluster, name, epoch=epoch, number=number)
            case "room", None:
                await client.room_closed(cluster, room, epoch=epoch, number=number)
            case "room", (token,):
                opened = RoomReport(token=token)
                await client.report_room(cluster, room, opened, epoch=epoch, number=number)
            case "missing", (placement,):
                await client.room_missing(cluster, room, int(placement), epoch=epoch, number=number)
            case "participant", None:
                await client.participant_left(cluster, room, name, epoch=epoch, number=number)
            case "participant", (user, role):
                who = ParticipantReport(user=user, role=role)
                await client.participant_joined(cluster, room, name, who, epoch=epoch, number=number)
            case "stream", None:
                await client.stream_gone(cluster, room, name, epoch=epoch, number=number)
            case "stream", (text,):
                stream = stream_reports.read(text)
                await client.report_stream(cluster, room, name, stream, epoch=epoch, number=number)
            case _:
                state: Literal["up", "down"] = "down" if detail is None else "up"
                await client.report_link(cluster, room, name, state, epoch=epoch, number=number)

    async def _follow_bridges(self, registered: dict[str, BridgeAddress]) -> None:
        """Have the registration renewed when a bridge has another address than is `registered`."""
        backoff = self._backoff()
        complete = await self._ask_addresses()
        while True:
            if self._addresses != registered:
                raise _RegisterAgainError(forgotten=False)
            try:
                async with asyncio.timeout(None if complete else backoff.next_delay()):
                    await self._bridges_changed.wait()
                backoff.reset()
            except TimeoutError:
                _log.debug("registration.asking_bridges_again")
            self._bridges_changed.clear()
            complete = await self._ask_addresses()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _refused(self, error: ApiError) -> bool:
        return error.type in {"cluster-unknown", "stale-epoch"}

    def _backoff(self) -> Backoff:
        return Backoff(base=self._settings.registrar.retry_base, cap=self._settings.registrar.retry_cap)


def _cpu() -> float:
    """How busy this machine is, 0 to 1: runnable tasks of the last minute for each core."""
    return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
