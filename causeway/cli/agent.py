"""`causeway agent`: look after bridges and recorders that control tells what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api.agents import AgentAddress, AgentView
    from causeway.cli.remote import Remote

__all__ = ["command"]


@click.group(name="agent")
def command() -> None:
    """Look after agents: list, show, drain. Needs an operator key.

    \b
        causeway agent list --cluster eu-1
        causeway agent drain bridge-eu-1
    """  # noqa: D301 - click wants the character itself, it keeps the lines below as they are


@command.command(name="list")
@click.option("--cluster", metavar="ID", help="Only agents of this cluster.")
@remote_options
def list_(remote: Remote, cluster: str | None) -> None:
    """List agents with state and load."""
    remote.show(remote.run(lambda control: control.list_agents(cluster=cluster)), _draw_all)


@command.command()
@click.argument("agent")
@remote_options
def show(remote: Remote, agent: str) -> None:
    """Show everything that control knows of an agent."""
    remote.show(remote.run(lambda control: control.get_agent(agent)), _draw)


@command.command()
@click.argument("agent")
@remote_options
def drain(remote: Remote, agent: str) -> None:
    """Give an agent nothing new, and what it has to others; watch it with `causeway agent show`."""
    remote.show(remote.run(lambda control: control.drain_agent(agent)), _draw)


@command.command()
@click.argument("agent")
@remote_options
def undrain(remote: Remote, agent: str) -> None:
    """Take a drain back."""
    remote.run(lambda control: control.undrain_agent(agent))
    remote.done(f"{agent} takes conferences again")


def _draw_all(agents: list[AgentView]) -> None:
    from causeway.cli.tables import table  # noqa: PLC0415 - rich; --help shall not wait for it

    table(
        ("agent", "cluster", "kinds", "state", "channel", "conferences", "links up", "last seen", "notes"),
        (
            (
                each.id,
                each.cluster,
                each.kinds,
                each.state,
                "open" if each.connected else "closed",
                f"{each.conferences} of {each.capacity.conferences}",
                each.load.links,
                each.last_seen_at,
                _notes(each),
            )
            for each in agents
        ),
    )


def _draw(agent: AgentView) -> None:
    from causeway.cli.figures import draw_counters, draw_peers  # noqa: PLC0415 - as above
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - as above

    facts(
        {
            "agent": agent.id,
            "cluster": agent.cluster,
            "region": agent.region,
            "kinds": agent.kinds,
            "state": f"{agent.state} since {agent.state_since:%Y-%m-%d %H:%M:%S}",
            "notes": _notes(agent),
            "version": f"{agent.version}, messages version {agent.protocol}",
            "wires": ", ".join(agent.wires) or None,
            "instance": agent.instance,
            "epoch": agent.epoch,
            "channel": "open" if agent.connected else "closed",
            "last seen": agent.last_seen_at,
            "lease until": agent.lease_expires_at,
            "event bridge": _address(agent.addresses.event),
            "media bridge": _address(agent.addresses.media),
            "conferences": f"{agent.conferences} of {agent.capacity.conferences}",
            "links up": agent.load.links,
            "cpu": f"{agent.load.cpu:.0%}",
            "bit/s in": agent.load.bandwidth_in,
            "bit/s out": agent.load.bandwidth_out,
            "told, acts on": f"version {agent.desired_version}, {agent.acked_version}",
            "measured at": None if agent.figures is None else agent.figures.told_at,
        }
    )
    if agent.figures is not None:
        draw_peers([peer for bridge in agent.figures.bridges for peer in bridge.peers])
        for bridge in agent.figures.bridges:
            draw_counters(bridge.counters, of=f"the {bridge.kind} bridge")
    if agent.refused:
        heading("refused")
        table(("conference", "peer", "reason"), ((x.conference, x.peer, x.reason) for x in agent.refused))


def _notes(agent: AgentView) -> str:
    notes = []
    if agent.drain_since is not None:
        notes.append(f"drained since {agent.drain_since:%Y-%m-%d %H:%M:%S}")
    if agent.refused:
        notes.append(f"refuses {len(agent.refused)}")
    if agent.connected and agent.acked_version != agent.desired_version:
        notes.append("behind")
    return "; ".join(notes)


def _address(address: AgentAddress | None) -> str | None:
    return None if address is None else f"{address.host}:{address.port}"
