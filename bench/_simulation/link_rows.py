"""The modelled database: links, as control.registry.links keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench._simulation.rows import LinkRow
from bench._simulation.tables import Tables

if TYPE_CHECKING:
    from bench._simulation.rows import Address
    from bench._simulation.tables import Said
    from control.cascade.view import Via

__all__ = ["LinkRows"]


class LinkRows(Tables):
    """What may be done to links."""

    def begin_fetch(self, conference: str, dialer: str, listener: str) -> int | None:
        """Note that the listener is about to be asked; None if the link is up by now."""
        if (conference, dialer) not in self.placements or (conference, listener) not in self.placements:
            return None
        row = self.links.setdefault((conference, dialer, listener), LinkRow(since=self.now))
        if row.state == "up":
            return None
        if row.state != "wanted":
            row.state, row.since = "wanted", self.now
        row.order = self._kernel.next_number()
        return row.order

    def fetched(self, conference: str, dialer: str, listener: str, order: int, bridges: Address) -> bool:
        """Keep the addresses, unless the link has moved on."""
        row = self.links.get((conference, dialer, listener))
        if row is None or row.order != order or row.state != "wanted":
            return False
        row.bridges, row.bridges_at, row.order, row.retry_at = bridges, self.now, None, None
        self._links_changed(conference, dialer, listener)
        return True

    def begin_order(self, conference: str, dialer: str, listener: str) -> tuple[int, Address] | None:
        """Use the addresses up for an order; None if there are none, or the link has moved on."""
        row = self.links.get((conference, dialer, listener))
        if row is None or row.state != "wanted" or row.bridges is None or row.bridges_at is None:
            return None
        row.order = self._kernel.next_number()
        row.via, row.bridges_at, row.orders = "driver", None, row.orders + 1
        return row.order, row.bridges

    def order_taken(self, conference: str, dialer: str, listener: str, order: int) -> None:
        """Note that the dialer took the order, unless the link has moved on."""
        row = self.links.get((conference, dialer, listener))
        if row is not None and row.order == order and row.state == "wanted":
            row.state, row.since, row.order, row.retry_at = "requested", self.now, None, None

    def order_by_agent(self, conference: str, dialer: str, listener: str) -> bool:
        """Have the dialer's agent told."""
        row = self.links.get((conference, dialer, listener))
        if row is None or row.state != "wanted" or row.bridges is None or row.bridges_at is None:
            return False
        row.via, row.state, row.since, row.orders = "agent", "requested", self.now, row.orders + 1
        row.bridges_at, row.order, row.retry_at = None, None, None
        self._links_changed(conference, dialer, listener)
        return True

    def order_failed(self, conference: str, dialer: str, listener: str, order: int, delay: float) -> None:
        """Note that a question or an order came to nothing."""
        row = self.links.get((conference, dialer, listener))
        if row is not None and row.order == order and row.state == "wanted":
            row.order, row.bridges_at = None, None
            row.attempts, row.retry_at = row.attempts + 1, self.now + delay

    def stop_failed(self, conference: str, dialer: str, listener: str, delay: float) -> None:
        """Note that the dialer would not end the link."""
        row = self.links.get((conference, dialer, listener))
        if row is not None:
            row.attempts, row.retry_at = row.attempts + 1, self.now + delay

    def unlink(self, conference: str, dialer: str, listener: str) -> None:
        """Delete the link."""
        self._unlink((conference, dialer, listener))

    def _unlink(self, key: tuple[str, str, str]) -> None:
        if self.links.pop(key, None) is not None:
            self._links_changed(*key)

    def _want(self, cluster: str, conference: str | None = None) -> None:
        for (where, dialer, listener), row in self.links.items():
            if cluster in {dialer, listener} and conference in {None, where}:
                row.renew(self.now)
                self._links_changed(where, dialer, listener)

    def _token_changed(self, conference: str, cluster: str) -> None:
        for where, dialer, listener in self.links:
            if (where, listener) == (conference, cluster):
                self._links_changed(conference, dialer)

    # --- what is reported ---------------------------------------------------------------------

    def link_seen(self, said: Said, conference: str, peer: str, state: Literal["up", "down"]) -> None:
        """Note what a cluster sees. Raises StaleEpochError, SupersededError."""
        self._admit(said, conference, f"link/{peer}", of=("",))
        self._report(conference, said.cluster, peer, state, via="driver")

    def link_seen_by_agent(
        self, cluster: str, conference: str, peer: str, state: Literal["up", "down"]
    ) -> None:
        """Note what an agent sees."""
        self._report(conference, cluster, peer, state, via="agent")

    def _report(
        self, conference: str, cluster: str, peer: str, state: Literal["up", "down"], *, via: Via
    ) -> None:
        ours = [(conference, cluster, peer)]
        if via == "driver":
            self.clusters[cluster].reports_links = True
            dialer = self.clusters.get(peer)
            if dialer is not None and not dialer.reports_links:
                ours.append((conference, peer, cluster))
        changed = False
        for key in ours:
            row = self.links.get(key)
            if row is None or row.via != via:
                continue
            if state == "up" and row.state != "up":
                row.state, row.since, row.order, row.attempts, row.retry_at = "up", self.now, None, 0, None
                changed = True
            elif state == "down" and row.state in {"requested", "up"}:
                row.state, row.since, row.order = "down", self.now, None
                changed = True
        if state == "up" and via == "driver" and self._adopt(conference, cluster, peer):
            changed = True
        if changed:
            self.mark(conference)

    def _adopt(self, conference: str, dialer: str, listener: str) -> bool:
        later = self.placements.get((conference, dialer))
        earlier = self.placements.get((conference, listener))
        if later is None or earlier is None or later.ordinal < earlier.ordinal:
            return False
        if (conference, dialer, listener) in self.links:
            return False
        self.links[conference, dialer, listener] = LinkRow(state="up", since=self.now)
        return True
