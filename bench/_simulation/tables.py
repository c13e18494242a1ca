"""The rows of the modelled database, the marks on conferences, and who is told when rows change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench._simulation.rows import (
    AgentRow,
    ClusterRow,
    ConferenceRow,
    DirtyRow,
    LinkRow,
    PlacementRow,
    ReservationRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench._simulation.kernel import Kernel

__all__ = ["Said", "StaleEpochError", "SupersededError", "Tables"]


class StaleEpochError(Exception):
    """The cluster's or agent's registration does not hold."""


class SupersededError(Exception):
    """The cluster has told something newer."""


class Said(NamedTuple):
    """Who says something, under which registration, and which of its requests it is (None: not numbered)."""

    cluster: str
    epoch: int
    number: int | None


class Tables:
    """All rows. Each method, here and in what is built on it, is one transaction."""

    def __init__(self, kernel: Kernel, *, relaying: bool) -> None:
        self._kernel = kernel
        self.relaying = relaying
        self.conferences: dict[str, ConferenceRow] = {}
        self.clusters: dict[str, ClusterRow] = {}
        self.placements: dict[tuple[str, str], PlacementRow] = {}
        self.links: dict[tuple[str, str, str], LinkRow] = {}
        """By conference, dialer, listener."""
        self.reservations: dict[int, ReservationRow] = {}
        self.dirty: dict[str, DirtyRow] = {}
        self.agents: dict[str, AgentRow] = {}
        self.round_trips: dict[tuple[str, str], float] = {}
        self.planned_with: dict[str, Mapping[tuple[str, str], float]] = {}
        """By conference: the round trips that it was last planned with. The judge's, not the registry's."""
        self.order: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        """By cluster, room and thing of the room: epoch, number of the last word, and of the last end."""
        self.moved: list[tuple[str, str, str, str]] = []
        """What was told to clients: conference, user, from where, to where."""
        self.out_of_reach: set[tuple[str, str]] = set()
        """Placements that were forgotten while their cluster could not be asked to remove the room."""
        self.on_mark: list[Callable[[str], None]] = []
        """Called with a conference when somebody may want to know: the notification."""
        self.on_agent: list[Callable[[str], None]] = []

    @property
    def now(self) -> float:
        """The database's clock."""
        return self._kernel.now

    def online(self, cluster: str) -> bool:
        """Say whether the lease holds."""
        row = self.clusters.get(cluster)
        return row is not None and row.state == "online" and row.until > self.now

    # --- work ---------------------------------------------------------------------------------

    def mark(self, conference: str) -> None:
        """Have the conference looked at."""
        row = self.dirty.get(conference)
        if row is None:
            self.dirty[conference] = DirtyRow(due_at=self.now)
        else:
            row.version += 1
            row.due_at = min(row.due_at, self.now)
        self._announce(conference)

    def _mark_cluster(self, cluster: str) -> None:
        for conference, _ in list(self._at(cluster)):
            self.mark(conference)

    def _announce(self, conference: str) -> None:
        for tell in self.on_mark:
            tell(conference)

    def claim(self, *, ttl: float, excluding: set[str]) -> list[tuple[str, int, int]]:
        """Take what is due and nobody works on; return (conference, claim, version)."""
        mine = self._kernel.next_number()
        taken = []
        for conference, row in self.dirty.items():
            held = row.holder is not None and row.held_until > self.now
            if row.due_at <= self.now and not held and conference not in excluding:
                row.holder, row.held_until = mine, self.now + ttl
                taken.append((conference, mine, row.version))
        return taken

    def renew(self, conference: str, claim: int, *, ttl: float) -> int | None:
        """Hold the claim longer; return the version now, None if the claim is gone."""
        row = self.dirty.get(conference)
        if row is None or row.holder != claim:
            return None
        row.held_until = self.now + ttl
        return row.version

    def finish(self, conference: str, claim: int, *, version: int, due_at: float | None) -> bool:
        """Give the claim back; False if there is a newer mark."""
        row = self.dirty.get(conference)
        if row is None or row.holder != claim or row.version != version:
            return False
        if due_at is None:
            del self.dirty[conference]
        else:
            row.holder, row.due_at = None, due_at
        return True

    # --- what others need ---------------------------------------------------------------------

    def _at(self, cluster: str) -> Iterator[tuple[str, PlacementRow]]:
        for (conference, where), row in list(self.placements.items()):
            if where == cluster:
                yield conference, row

    def placements_of(self, conference: str) -> dict[str, PlacementRow]:
        """Return them by cluster."""
        return {cluster: row for (where, cluster), row in self.placements.items() if where == conference}

    def reserved_until(self, conference: str, cluster: str) -> float | None:
        """Return until when somebody is on the way there; None: nobody is."""
        untils = [
            seat.until
            for seat in self.reservations.values()
            if seat.conference == conference and seat.cluster == cluster and seat.until > self.now
        ]
        return max(untils, default=None)

    def _admit(
        self, said: Said, conference: str, thing: str = "", *, gone: bool = False, of: tuple[str, ...] = ()
    ) -> None:
        """Refuse what is not said by whom the cluster is, or is older than what was carried out.

        After control.registry.report_order. Raises StaleEpochError, SupersededError.
        """
        cluster, epoch, number = said
        if not self.online(cluster) or self.clusters[cluster].epoch != epoch:
            raise StaleEpochError(cluster)
        if number is None:
            return
        for whole in of:
            known = self.order.get((cluster, conference, whole))
            if known is not None and known[0] == epoch and known[2] > number:
                raise SupersededError(cluster)
        last, before, end = self.order.get((cluster, conference, thing), (epoch, 0, 0))
        if (last, before) >= (epoch, number):
            raise SupersededError(cluster)
        kept = end if last == epoch else 0
        self.order[cluster, conference, thing] = (epoch, number, number if gone else kept)

    def _links_changed(self, conference: str, *ends: str) -> None:
        for end in ends:
            placement = self.placements.get((conference, end))
            if placement is not None:
                for agent in sorted(set(placement.agents.values())):
                    self._tell_agent(agent)

    def _tell_agent(self, agent: str) -> None:
        for tell in list(self.on_agent):
            tell(agent)
