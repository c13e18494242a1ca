"""`causeway cluster`: look after clusters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from causeway.api import BlockRequest, DrainRequest
from causeway.cli.cluster_change import log, set_
from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api import BridgeAddress, ClusterView, PortalAddress
    from causeway.cli.remote import Remote

__all__ = ["command"]


@click.group(name="cluster")
def command() -> None:
    """Look after clusters: list, show, set, drain, block. Needs an operator key.

    \b
        causeway cluster list
        causeway cluster drain eu-1 --reason "new kernel" --within 60
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@click.option("--region", metavar="NAME", help="Only clusters of this region.")
@remote_options
def list_(remote: Remote, region: str | None) -> None:
    """List clusters with state and load."""
    clusters = remote.run(lambda control: control.list_clusters())
    remote.show([each for each in clusters if region is None or each.region == region], _draw_all)


@command.command()
@click.argument("cluster")
@remote_options
def show(remote: Remote, cluster: str) -> None:
    """Show everything that control knows of a cluster."""
    remote.show(remote.run(lambda control: control.get_cluster(cluster)), _draw)


@command.command()
@click.argument("cluster")
@click.option("--reason", default="", metavar="TEXT", help="Shown with the cluster, kept in the audit.")
@click.option(
    "--within",
    type=click.FloatRange(min=0, min_open=True, max=525_600),
    metavar="MINUTES",
    help="Deadline for what is still there. Default: none.",
)
@remote_options
def drain(remote: Remote, cluster: str, reason: str, within: float | None) -> None:
    """Give a cluster no new conferences; watch the progress with `causeway cluster show`."""
    deadline = None if within is None else datetime.now(UTC) + timedelta(minutes=within)
    request = DrainRequest(deadline=deadline, reason=reason)
    remote.show(remote.run(lambda control: control.drain_cluster(cluster, request)), _draw)


@command.command()
@click.argument("cluster")
@remote_options
def undrain(remote: Remote, cluster: str) -> None:
    """Take a drain back."""
    remote.run(lambda control: control.undrain_cluster(cluster))
    remote.done(f"{cluster} takes conferences again")


@command.command()
@click.argument("cluster")
@click.option("--reason", default="", metavar="TEXT", help="Shown with the cluster, kept in the audit.")
@remote_options
def block(remote: Remote, cluster: str, reason: str) -> None:
    """Give a cluster no new clients at all."""
    request = BlockRequest(reason=reason)
    remote.show(remote.run(lambda control: control.block_cluster(cluster, request)), _draw)


@command.command()
@click.argument("cluster")
@remote_options
def unblock(remote: Remote, cluster: str) -> None:
    """Take a block back."""
    remote.run(lambda control: control.unblock_cluster(cluster))
    remote.done(f"{cluster} takes clients again")


command.add_command(set_)
command.add_command(log)


def _draw_all(clusters: list[ClusterView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("cluster", "region", "driver", "state", "participants", "cpu", "last seen", "notes"),
        (
            (
                each.id,
                each.region,
                each.driver,
                each.state,
                _of(each.load.participants, each.limits.participants),
                f"{each.load.cpu:.0%}",
                each.last_seen_at,
                _notes(each),
            )
            for each in clusters
        ),
    )


def _draw(cluster: ClusterView) -> None:
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - as above

    facts(
        {
            "cluster": cluster.id,
            "region": cluster.region,
            "state": f"{cluster.state} since {cluster.state_since:%Y-%m-%d %H:%M:%S}: {cluster.state_reason}",
            "notes": _notes(cluster),
            "driver": cluster.driver,
            "management API": cluster.rest_url,
            "deployment": cluster.instance,
            "epoch": cluster.epoch,
            "last seen": cluster.last_seen_at,
            "lease until": cluster.lease_expires_at,
            "signs of life": "asked for" if cluster.probed else "heartbeats",
            "participants": _of(cluster.load.participants, cluster.limits.participants),
            "streams": cluster.load.streams,
            "cpu": f"{cluster.load.cpu:.0%}",
            "bit/s in": _of(cluster.load.bandwidth_in, cluster.limits.bandwidth_in),
            "bit/s out": _of(cluster.load.bandwidth_out, cluster.limits.bandwidth_out),
            "conferences at most": cluster.limits.conferences,
            "labels": cluster.labels,
            "cost": cluster.cost,
            "location": None if cluster.location is None else to_builtins(cluster.location),
            "ping": cluster.ping_url,
            "event bridge": _address(cluster.event_bridge),
            "media bridge": _address(cluster.media_bridge),
            "portal": _address(cluster.portal),
        }
    )
    if cluster.capacity:
        heading("capacity")
        load = cluster.load.modules
        rows = ((name, c.count, c.limit, load.get(name)) for name, c in sorted(cluster.capacity.items()))
        table(("module", "count", "limit", "load"), rows)


def _notes(cluster: ClusterView) -> str:
    notes = []
    if (breaker := cluster.breaker) is not None:
        notes.append(f"{breaker.state} breaker after {breaker.failures} failures: {breaker.error or 'none'}")
    if (drain := cluster.drain) is not None:
        left = f"{drain.participants} participants, {drain.conferences} conferences left"
        until = "" if drain.deadline is None else f", until {drain.deadline:%Y-%m-%d %H:%M:%S}"
        notes.append(f"drain {drain.progress}: {left}{until}{_because(drain.reason)}")
    if (block := cluster.block) is not None:
        notes.append(f"blocked since {block.since:%Y-%m-%d %H:%M:%S}{_because(block.reason)}")
    return "; ".join(notes)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _of(value: int, limit: int | None) -> str:
    return str(value) if limit is None else f"{value} of {limit}"


def _address(address: BridgeAddress | PortalAddress | None) -> str | None:
    return None if address is None else f"{address.host}:{address.port}"
