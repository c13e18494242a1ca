"""`causeway cluster set` and `causeway cluster log`: changes of a cluster, and who made which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from causeway.api import ClusterPatch, Limits, Location
from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api import AuditEntry, ClusterView
    from causeway.cli.remote import Remote
    from causeway.client import ControlClient

__all__ = ["log", "set_"]

_MOST_ENTRIES = 200


@click.command(name="set")
@click.argument("cluster")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Set one; KEY= takes it away.")
@click.option("--participants", type=int, metavar="N", help="Take so many at most; -1: no limit.")
@click.option("--conferences", type=int, metavar="N", help="Take so many at most; -1: no limit.")
@click.option("--bandwidth-in", type=int, metavar="BIT/S", help="The limit; -1: none.")
@click.option("--bandwidth-out", type=int, metavar="BIT/S", help="The limit; -1: none.")
@click.option("--cost", type=float, metavar="X", help="Dearer clusters are taken later.")
@click.option("--ping-url", metavar="URL", help="What clients measure their latency to.")
@click.option("--location", metavar="LAT,LON", help="Where it is, in degrees.")
@remote_options
def set_(remote: Remote, cluster: str, labels: tuple[str, ...], location: str | None, **options: Any) -> None:
    """Set labels, limits, cost, ping URL or location; what is not named stays as it is."""
    limits = {
        name: options.pop(name) for name in ("participants", "conferences", "bandwidth_in", "bandwidth_out")
    }
    changes = {
        name: value
        for name, value in {**options, "location": None if location is None else _point(location)}.items()
        if value is not None
    }

    async def change(control: ControlClient) -> ClusterView:
        known = await control.get_cluster_tagged(cluster)
        if labels:
            changes["labels"] = _labelled(known.value.labels, labels)
        if any(value is not None for value in limits.values()):
            changes["limits"] = _limited(known.value.limits, limits)
        try:
            patch = msgspec.convert(changes, ClusterPatch)
        except msgspec.ValidationError as error:
            raise click.UsageError(str(error)) from None
        # Labels and limits are replaced whole: not over what somebody else has set meanwhile.
        return await control.update_cluster(cluster, patch, if_match=known.tag)

    if not changes and not labels and all(value is None for value in limits.values()):
        raise click.UsageError("name what is to be set, for example --participants 500")
    changed = remote.run(change)
    remote.show(changed, lambda _: remote.done(f"{cluster} is changed; see: causeway cluster show {cluster}"))


@click.command(name="log")
@click.argument("cluster", required=False)
@click.option("--last", type=click.IntRange(1, _MOST_ENTRIES), default=20, show_default=True, metavar="N")
@remote_options
def log(remote: Remote, cluster: str | None, last: int) -> None:
    """Show who changed what of a cluster, newest first; without a cluster, of everything."""
    subject = None if cluster is None else f"cluster:{cluster}"
    found = remote.run(lambda control: control.list_audit(subject=subject, limit=last))
    remote.show(found.entries, _draw)


def _labelled(known: dict[str, str], given: tuple[str, ...]) -> dict[str, str]:
    labels = dict(known)
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--label: {text}: KEY=VALUE, or KEY= to take it away")
        if value:
            labels[key] = value
        else:
            labels.pop(key, None)
    return labels


def _limited(known: Limits, given: dict[str, int | None]) -> dict[str, int]:
    limits = {name: getattr(known, name) if value is None else value for name, value in given.items()}
    return {name: value for name, value in limits.items() if value is not None and value != -1}


def _point(text: str) -> dict[str, float]:
    try:
        lat, lon = (float(part) for part in text.split(","))
        msgspec.convert({"lat": lat, "lon": lon}, Location)
    except (ValueError, msgspec.ValidationError):
        raise click.UsageError(f"--location: {text}: LAT,LON in degrees, for example 50.1,8.7") from None
    return {"lat": lat, "lon": lon}


def _draw(entries: list[AuditEntry]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    rows = ((each.at, each.subject, each.action, each.actor, each.before, each.after) for each in entries)
    table(("when", "what", "done", "by", "before", "after"), rows)
