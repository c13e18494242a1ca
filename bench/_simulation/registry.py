"""The modelled database, as control.registry keeps it: clusters, joining, reports, rooms.

Methods have the names of the queries that they follow. What those promise (compare and set, one statement,
one lock) is what a method that never waits gives. Knows no plan, and nothing of how the world really is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench._simulation.agent_rows import AgentRows
from bench._simulation.rows import ClusterRow, ConferenceRow, PlacementRow, ReservationRow
from bench._simulation.tables import Said, SupersededError

if TYPE_CHECKING:
    from bench._simulation.rows import Address
    from control.cascade.topology import TopologyWish
    from control.placement.facts import Point

__all__ = ["Registry"]

_RESERVED: Final = 15.0
_RESERVED_MOVED: Final = 25.0
"""Seconds; shorter than by default, so that what has to happen afterwards does so sooner."""


class Registry(AgentRows):
    """All of it."""

    # --- clusters ----------------------------------------------------------------------------------

    def register(
        self,
        cluster: str,
        *,
        incarnation: int,
        bridges: Address | None,
        reports_links: bool,
        knows_participants: bool,
        region: str,
        location: Point,
        ttl: float,
        number: int | None,
    ) -> int:
        """Take the cluster in; return its epoch. Raises SupersededError."""
        old, live = self.clusters.get(cluster), self.online(cluster)
        self._admit_registration(cluster, number, same=old is not None and old.incarnation == incarnation)
        if old is None:
            self.clusters[cluster] = ClusterRow(
                incarnation=incarnation,
                epoch=1,
                until=self.now + ttl,
                reports_links=reports_links,
                knows_participants=knows_participants,
                region=region,
                location=location,
                bridges=bridges,
            )
            return 1
        restarted = old.incarnation != incarnation
        again, moved = live and not restarted, old.bridges != bridges
        if restarted:
            old.reports_links = reports_links
        old.incarnation, old.bridges = incarnation, bridges
        old.state, old.until = "online", self.now + ttl
        old.epoch += 0 if again else 1
        if restarted:
            for conference, row in self._at(cluster):
                self._displace(row)
                row.state, row.room, row.token, row.attempts, row.retry_at = "wanted", False, None, 0, None
                self.mark(conference)
        elif not live:
            for _, row in self._at(cluster):
                if row.state == "lost":
                    row.state = "ready" if row.room else "wanted"
                row.displaced.clear()
        if not again or moved:
            self._want(cluster)
            self._mark_cluster(cluster)
        return old.epoch

    def _admit_registration(self, cluster: str, number: int | None, *, same: bool) -> None:
        if number is None:
            return
        _, before, _ = self.order.get((cluster, "", "registration"), (0, 0, 0))
        if same and before >= number:
            raise SupersededError(cluster)
        self.order[cluster, "", "registration"] = (0, number, 0)

    def heartbeat(self, cluster: str, *, epoch: int, ttl: float) -> None:
        """Renew the lease. Raises StaleEpochError."""
        self._admit(Said(cluster, epoch, None), "")
        self.clusters[cluster].until = self.now + ttl

    def unregister(self, cluster: str, *, epoch: int) -> None:
        """Let the cluster go."""
        row = self.clusters.get(cluster)
        if row is None or row.epoch != epoch or row.state == "unregistered":
            return
        row.state, row.until = "unregistered", self.now
        self._lose(cluster)

    def sweep(self) -> str | None:
        """Write off one cluster, or one agent, whose lease ran out."""
        for cluster, row in self.clusters.items():
            if row.state == "online" and row.until <= self.now:
                row.state = "lost"
                self._lose(cluster)
                return cluster
        for name, agent in self.agents.items():
            if agent.until <= self.now and agent.live:
                agent.live = False
                self._mark_agent(name)
                return name
        return None

    def _lose(self, cluster: str) -> None:
        for _, row in self._at(cluster):
            self._displace(row)
            row.state, row.token, row.attempts, row.retry_at = "lost", None, 0, None
        self._want(cluster)
        self._mark_cluster(cluster)

    def _displace(self, row: PlacementRow) -> None:
        row.displaced |= row.people
        self._empty(row)

    def _empty(self, row: PlacementRow) -> None:
        if row.people:
            row.people.clear()
            row.empty_since = self.now

    # --- joining -----------------------------------------------------------------------------------

    def create(self, conference: str, topology: TopologyWish) -> None:
        """Make the conference, unless it is there."""
        self.conferences.setdefault(conference, ConferenceRow(topology=topology))

    def end(self, conference: str) -> None:
        """End the conference."""
        row = self.conferences.get(conference)
        if row is not None:
            row.state = "ending"
            self.mark(conference)

    def reserve(self, conference: str, cluster: str, user: str) -> bool:
        """Take a seat, placing the conference if need be; False if it cannot be there."""
        row = self.conferences.get(conference)
        if row is None or row.state == "ending" or not self.online(cluster):
            return False
        self._ensure(conference, cluster, reported=False)
        self._seat(conference, cluster, user, _RESERVED)
        for placement in self.placements_of(conference).values():
            for participant in [p for p, who in placement.displaced.items() if who == user][:1]:
                del placement.displaced[participant]
        return True

    def give_up(self, conference: str, cluster: str, user: str) -> None:
        """Give a seat back."""
        for key, seat in list(self.reservations.items()):
            if (seat.conference, seat.cluster, seat.user) == (conference, cluster, user):
                del self.reservations[key]

    def _seat(self, conference: str, cluster: str, user: str, ttl: float) -> None:
        self.reservations[self._kernel.next_number()] = ReservationRow(
            conference=conference, cluster=cluster, user=user, until=self.now + ttl
        )

    def _ensure(self, conference: str, cluster: str, *, reported: bool) -> None:
        head = self.conferences.get(conference)
        if head is None:
            raise KeyError(conference)
        row = self.placements.get((conference, cluster))
        if row is None:
            if head.state == "ending" and not reported:
                raise KeyError(conference)
            ordinals = [p.ordinal for p in self.placements_of(conference).values()]
            self.placements[conference, cluster] = PlacementRow(
                ordinal=max(ordinals, default=0) + 1,
                epoch=self._next_epoch(),
                state="ready" if reported else "wanted",
                room=reported,
                empty_since=self.now,
            )
        elif reported and row.state != "ready":
            row.state, row.room, row.attempts, row.retry_at = "ready", True, 0, None
        elif reported or row.state == "ready":
            return
        self.mark(conference)

    def _next_epoch(self) -> int:
        return max(round(self.now * 1e6), 1)

    # --- reports -----------------------------------------------------------------------------------

    def room_opened(self, said: Said, conference: str, token: str) -> None:
        """Keep the room's token. Raises StaleEpochError, SupersededError, KeyError."""
        self._admit(said, conference)
        cluster = said.cluster
        self._ensure(conference, cluster, reported=True)
        row = self.placements[conference, cluster]
        before, row.token = row.token, token
        self._token_changed(conference, cluster)
        if before not in {None, token}:
            self._want(cluster, conference)
        self.mark(conference)

    def room_closed(self, said: Said, conference: str) -> None:
        """Forget the token and everybody. Raises StaleEpochError, SupersededError."""
        self._admit(said, conference, gone=True)
        cluster = said.cluster
        row = self.placements.get((conference, cluster))
        if row is None:
            return
        row.token = None
        self._token_changed(conference, cluster)
        self._empty(row)
        self._want(cluster, conference)
        self.mark(conference)

    def participant_joined(self, said: Said, conference: str, participant: str, user: str) -> None:
        """Note who is there. Raises StaleEpochError, SupersededError, KeyError."""
        self._admit(said, conference, participant, of=("",))
        cluster = said.cluster
        self._ensure(conference, cluster, reported=True)
        row = self.placements[conference, cluster]
        if participant not in row.people:
            for key, seat in self.reservations.items():
                if (seat.conference, seat.cluster, seat.user) == (conference, cluster, user):
                    del self.reservations[key]
                    break
        row.people[participant] = user
        row.empty_since = None
        self.mark(conference)

    def participant_left(self, said: Said, conference: str, participant: str) -> None:
        """Note who is not there any more. Raises StaleEpochError, SupersededError."""
        self._admit(said, conference, participant, gone=True)
        cluster = said.cluster
        row = self.placements.get((conference, cluster))
        if row is not None and row.people.pop(participant, None) is not None:
            if not row.people:
                row.empty_since = self.now
            self.mark(conference)

    def room_wanted(self, said: Said, conference: str, placement: int) -> None:
        """Have a room made that somebody had a token for. Raises StaleEpochError, SupersededError."""
        self._admit(said, conference, "missing", of=("",))
        row = self.placements.get((conference, said.cluster))
        if row is not None and row.state == "ready" and row.epoch == placement:
            row.state, row.room, row.attempts, row.retry_at = "wanted", False, 0, None
            self.mark(conference)

    # --- rooms -------------------------------------------------------------------------------------

    def created(self, conference: str, cluster: str, *, incarnation: int, epoch: int) -> bool:
        """Note that the room exists; False if it was not wanted any more."""
        row = self.placements.get((conference, cluster))
        if row is None or row.state != "wanted" or row.epoch != epoch:
            return False
        if self.clusters[cluster].incarnation != incarnation:
            return False
        row.state, row.room, row.attempts, row.retry_at = "ready", True, 0, None
        self._announce(conference)
        return True

    def room_failed(self, conference: str, cluster: str, delay: float) -> None:
        """Note that a room could not be made or removed."""
        row = self.placements.get((conference, cluster))
        if row is not None:
            row.attempts, row.retry_at = row.attempts + 1, self.now + delay
            self._announce(conference)

    def vacate(self, conference: str, cluster: str) -> bool:
        """Want the room no longer to be as it is, if nobody is there or on the way."""
        row = self.placements.get((conference, cluster))
        if row is None or row.state == "lost" or not self._deserted(conference, cluster):
            return False
        row.state, row.room = "wanted", False
        return True

    def renew_placement(self, conference: str, cluster: str) -> int | None:
        """Begin a new epoch of a vacated placement; return the former one. None: somebody is on the way."""
        row = self.placements.get((conference, cluster))
        if row is None or row.state != "wanted" or not self._deserted(conference, cluster):
            return None
        former, row.epoch = row.epoch, self._next_epoch()
        return former

    def unplaced(self, cluster: str, rooms: dict[str, int], *, min_age: float) -> list[tuple[str, int]]:
        """Return those of {room: epoch} that no placement knows, and that are not of lately."""
        youngest = (self.now - min_age) * 1e6
        return [
            (room, epoch)
            for room, epoch in rooms.items()
            if (room, cluster) not in self.placements and epoch < youngest
        ]

    def vacated(self, conference: str, cluster: str) -> bool:
        """Forget a placement whose room has been removed, if still nobody is there or on the way."""
        row = self.placements.get((conference, cluster))
        if row is None or row.state != "wanted" or not self._deserted(conference, cluster):
            if row is not None and row.state == "ready":
                row.state, row.room, row.attempts, row.retry_at = "wanted", False, 0, None
            self.mark(conference)
            return False
        self.remove_placement(conference, cluster)
        return True

    def room_missing(self, conference: str, cluster: str, token: str | None) -> None:
        """Note that the cluster does not know the room: it is wanted again, and its links with it.

        `token`: as it was before the cluster was asked; with another one the room lives.
        """
        row = self.placements.get((conference, cluster))
        if row is None or row.state != "ready" or row.token != token:
            return
        row.state, row.room, row.token, row.attempts, row.retry_at = "wanted", False, None, 0, None
        self._token_changed(conference, cluster)
        self._empty(row)
        self._want(cluster, conference)
        self.mark(conference)

    def remove_placement(self, conference: str, cluster: str, *, only_lost: bool = False) -> None:
        """Delete a placement."""
        row = self.placements.get((conference, cluster))
        if row is None or (only_lost and row.state != "lost"):
            return
        del self.placements[conference, cluster]
        if row.state == "lost" or not self.online(cluster):
            self.out_of_reach.add((conference, cluster))
        for key in [key for key in self.links if key[0] == conference and cluster in key]:
            self._unlink(key)
        for number, seat in list(self.reservations.items()):
            if (seat.conference, seat.cluster) == (conference, cluster):
                del self.reservations[number]
        for agent in sorted(set(row.agents.values())):
            self._tell_agent(agent)

    def forget(self, conference: str) -> None:
        """Delete an ending conference."""
        row = self.conferences.get(conference)
        placed = [key[1] for key in self.placements if key[0] == conference]
        if row is None or row.state != "ending":
            return
        if any(self.placements[conference, each].state != "lost" and self.online(each) for each in placed):
            return  # a cluster is back since somebody looked: its room can be removed
        for cluster in placed:
            self.remove_placement(conference, cluster)
        del self.conferences[conference]
        self.dirty.pop(conference, None)

    def _deserted(self, conference: str, cluster: str) -> bool:
        row = self.placements[conference, cluster]
        return not row.people and not row.displaced and self.reserved_until(conference, cluster) is None

    # --- clients of lost clusters ------------------------------------------------------------------

    def displaced(self, conference: str, cluster: str) -> list[tuple[str, str]]:
        """Return (participant, user) of those to be moved."""
        row = self.placements.get((conference, cluster))
        return [] if row is None else sorted(row.displaced.items())

    def move(self, conference: str, cluster: str, participant: str, to: str) -> bool:
        """Tell a displaced client where to go, once."""
        row = self.placements.get((conference, cluster))
        head = self.conferences.get(conference)
        if row is None or head is None or head.state == "ending" or participant not in row.displaced:
            return False
        if not self.online(to):
            return False
        user = row.displaced.pop(participant)
        self._ensure(conference, to, reported=False)
        self._seat(conference, to, user, _RESERVED_MOVED)
        self.moved.append((conference, user, cluster, to))
        self.mark(conference)
        return True
