"""Puts together what the table shows, from what is observed, supervised and reported."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lab.launcher.activity import Activity
from lab.launcher.table import ClusterRow, LinkRow, ParticipantRow, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.launcher.observer import Observer
    from lab.launcher.processes import Region
    from lab.launcher.scoreboard import Score, Scoreboard
    from lab.launcher.supervisor import Supervisor

__all__ = ["View"]

_UNSEEN = "-"


class View:
    """The laboratory as it is at this moment."""

    def __init__(
        self,
        *,
        conference: str,
        regions: Sequence[Region],
        supervisor: Supervisor,
        observer: Observer,
        scoreboard: Scoreboard,
    ) -> None:
        self._conference = conference
        self._regions = regions
        self._supervisor = supervisor
        self._observer = observer
        self._scoreboard = scoreboard
        self._totals = {region.name: Activity() for region in regions}
        self._rates: dict[str, tuple[float, int, float]] = {}
        self.doing = "starting"
        """What is going on, in a few words."""
        self.running_since: float | None = None
        """When everything ran for the first time, in seconds of CLOCK_MONOTONIC."""

    def start_clock(self) -> None:
        """Take note that everything runs."""
        self.doing = "running"
        self.running_since = time.monotonic()

    def snapshot(self) -> Snapshot:
        """Return everything at this moment."""
        seen = self._observer.seen
        conference = seen.conference
        now = datetime.now(UTC)
        return Snapshot(
            elapsed=time.monotonic() - self.running_since if self.running_since is not None else 0.0,
            doing=self.doing,
            conference=self._conference if conference is not None else _UNSEEN,
            clusters=[self._cluster(region, now) for region in self._regions],
            links=[
                LinkRow(
                    dialer=link.dialer,
                    listener=link.listener,
                    state=link.state,
                    age=max(0.0, (now - link.since).total_seconds()),
                    attempts=link.attempts,
                )
                for link in (conference.links if conference is not None else [])
            ],
            participants=[self._participant(score) for score in self._scoreboard.scores.values()],
        )

    def _cluster(self, region: Region, now: datetime) -> ClusterRow:
        seen = self._observer.seen
        cluster = seen.clusters.get(region.cluster)
        bridge = self._supervisor.children.get(f"bridge-{region.name}")
        total = self._totals[region.name]
        total.follow(seen.stats.get(region.name))
        return ClusterRow(
            cluster=region.cluster,
            region=region.name,
            state=cluster.state if cluster is not None else _UNSEEN,
            lease=(cluster.lease_expires_at - now).total_seconds() if cluster is not None else None,
            bridge=bridge.state.value if bridge is not None else _UNSEEN,
            restarts=bridge.life.restarts if bridge is not None else 0,
            local=total.local,
            remote=total.remote,
            events=total.events,
            frames=total.frames,
            bits=self._bits(region.name, total.bytes, seen.at),
            dropped=total.dropped,
        )

    def _bits(self, region: str, total: int, at: float) -> float:
        """Return bit/s since the last look at least half a second ago."""
        before_at, before, rate = self._rates.get(region, (at, total, 0.0))
        if at - before_at >= 0.5:  # noqa: PLR2004 - shorter, and the rate would jump
            rate = 8 * (total - before) / (at - before_at)
            before_at, before = at, total
        self._rates[region] = (before_at, before, rate)
        return max(0.0, rate)

    def _participant(self, score: Score) -> ParticipantRow:
        child = self._supervisor.children.get(score.name)
        return ParticipantRow(
            name=score.name,
            region=score.region,
            publishes=score.publishes,
            state=child.state.value if child is not None else _UNSEEN,
            frames=score.frames,
            rate=score.rate,
            audio=score.audio,
            p50=score.percentile(0.50),
            p99=score.percentile(0.99),
            dropped=score.dropped,
            longest_gap=score.longest_gap,
        )
