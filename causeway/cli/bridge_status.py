"""`causeway bridge status`: what the bridges that run on this machine say of themselves."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import click
import msgspec
from msgspec import structs

from causeway.api.figures import ProcessFigures
from causeway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from causeway.api.figures import BridgeFigures, LinkFigures

__all__ = ["command"]

_MAX_BYTES: Final = 64 << 20
_TIMEOUT: Final = 5.0


@click.command(name="status")
@click.option(
    "--at",
    metavar="WHERE",
    help="Ask this one only: what `bridge.status.listen` says, unix:/path/of/socket or http://127.0.0.1:port.",
)
@click.option("--cluster", metavar="ID", help="Only bridges of this cluster.")
@click.option("--conference", metavar="ID", help="Only links of this conference.")
@click.option("--down", is_flag=True, help="Only links that are down.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
def command(
    at: str | None, cluster: str | None, conference: str | None, *, down: bool, as_json: bool
) -> None:
    """Show the bridges of this user that run on this machine: their links, connections and refusals.

    \b
        causeway bridge status
        causeway bridge status --conference standup
        causeway bridge status --at http://127.0.0.1:7790 --json

    docs/operating.md says what the columns mean.
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are
    found = [_ask(at)] if at is not None else _ask_all()
    found = [each for each in found if cluster is None or each.cluster == cluster]
    if not found:
        raise UnavailableError(
            "no bridge runs here, or none with a status endpoint of this user's (see --at)"
        )
    shown = [_only(each, conference=conference, down=down) for each in found]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        return
    for each in shown:
        _draw(each)


# --- asking -----------------------------------------------------------------------------------


def _ask_all() -> list[ProcessFigures]:
    from bridges.status.places import find_sockets  # noqa: PLC0415 - --help needs none of it

    found = []
    for path in find_sockets():
        try:
            found.append(_ask(f"unix:{path}"))
        except UnavailableError:
            continue  # of a process that was killed, or stops right now
    return found


def _ask(where: str) -> ProcessFigures:
    """Return what the endpoint says. Raises ConfigError for a wrong address, UnavailableError."""
    import httpx2  # noqa: PLC0415 - --help needs none of it

    from bridges.status.places import Http, parse  # noqa: PLC0415

    place = parse(where)
    if place is None or where == "auto":
        raise click.UsageError("--at: unix:/path/of/socket or http://127.0.0.1:port")
    if isinstance(place, Http):
        transport, url = httpx2.HTTPTransport(), where
    else:
        _knock(place.path, where)
        transport, url = httpx2.HTTPTransport(uds=str(place.path)), "http://localhost/"
    try:
        with (
            httpx2.Client(transport=transport, timeout=_TIMEOUT, trust_env=False) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != httpx2.codes.OK:
                raise UnavailableError(f"{where} answers {answer.status_code}")
            return msgspec.json.decode(_read(answer.iter_bytes(), where), type=ProcessFigures)
    except (httpx2.HTTPError, OSError) as error:
        raise UnavailableError(f"{where} does not answer: {str(error) or type(error).__name__}") from None
    except msgspec.DecodeError as error:
        raise UnavailableError(f"{where} is no bridge's status endpoint: {error}") from None


def _knock(path: Path, where: str) -> None:
    """Raise UnavailableError where nobody listens: there httpx2 would leave its own socket open."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_TIMEOUT)
            probe.connect(str(path))
    except OSError as error:
        raise UnavailableError(f"{where} does not answer: {error.strerror or error}") from None


def _read(chunks: Iterable[bytes], where: str) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _MAX_BYTES:
            raise UnavailableError(f"{where} answers with more than {_MAX_BYTES} bytes")
    return bytes(body)


def _only(process: ProcessFigures, *, conference: str | None, down: bool) -> ProcessFigures:
    def keep(link: LinkFigures) -> bool:
        return (conference is None or link.conference == conference) and not (down and link.state == "up")

    bridges = [
        structs.replace(bridge, links=[link for link in bridge.links if keep(link)])
        for bridge in process.bridges
    ]
    return structs.replace(process, bridges=bridges)


# --- showing ----------------------------------------------------------------------------------


def _draw(process: ProcessFigures) -> None:
    from causeway.cli.tables import facts, heading  # noqa: PLC0415 - rich; --help shall not wait for it

    control = process.control
    heading(f"cluster {process.cluster}, process {process.pid}")
    facts(
        {
            "version": process.version,
            "running since": process.started_at,
            "control": "no agent of control"
            if control is None
            else f"agent {control.agent}, {'connected' if control.connected else 'not connected'}, "
            f"acts on version {'–' if control.version is None else control.version}, "
            f"{control.links_up} of {control.links_wanted} links up",
        }
    )
    for bridge in process.bridges:
        _draw_bridge(bridge)


def _draw_bridge(bridge: BridgeFigures) -> None:
    from causeway.cli.figures import draw_counters, draw_links, draw_peers  # noqa: PLC0415 - as above
    from causeway.cli.tables import heading  # noqa: PLC0415 - as above

    joined = "joined its cluster" if bridge.node_connected else "is NOT connected to its cluster"
    heading(f"{bridge.kind} bridge, UDP port {bridge.port}, {joined}")
    draw_peers(bridge.peers)
    draw_links(bridge.links)
    draw_counters(bridge.counters, of=f"the {bridge.kind} bridge")
