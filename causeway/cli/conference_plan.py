"""`causeway conference plan`: what is about to be done about a conference, and what waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from causeway.cli.remote import remote_options

if TYPE_CHECKING:
    from causeway.api import PlanView
    from causeway.cli.remote import Remote

__all__ = ["plan"]


@click.command()
@click.argument("conference")
@remote_options
def plan(remote: Remote, conference: str) -> None:
    """Show what is about to be done about a conference, and what waits for what."""
    remote.show(remote.run(lambda control: control.get_plan(conference)), _draw)


def _draw(plan: PlanView) -> None:
    from causeway.cli.figures import draw_ends  # noqa: PLC0415 - as below
    from causeway.cli.tables import facts, heading, table  # noqa: PLC0415 - rich; --help shall not wait for it

    facts(
        {
            "conference": plan.conference,
            "state": plan.state,
            "at": plan.at,
            "template version": plan.template_version,
            "topology asked for": plan.topology.asked,
            "topology used": plan.topology.used,
            "because": plan.topology.reason,
            "links wanted": [f"{dialer} → {listener}" for dialer, listener in plan.topology.links],
            "looked at again": plan.next_look_at,
        }
    )
    if plan.placements:
        heading("placements")
        table(
            (
                "#",
                "cluster",
                "region",
                "state",
                "online",
                "room",
                "people",
                "empty since",
                "displaced",
                "agents",
            ),
            (
                (
                    p.ordinal,
                    p.cluster,
                    p.region,
                    p.state,
                    p.online,
                    "alive" if p.alive else "asleep",
                    p.participants,
                    p.empty_since,
                    p.displaced,
                    p.agents,
                )
                for p in plan.placements
            ),
        )
    if plan.links:
        heading("links")
        table(
            ("dialer", "listener", "state", "since", "by", "wanted", "failures"),
            ((x.dialer, x.listener, x.state, x.since, x.via, x.wanted, x.attempts) for x in plan.links),
        )
    draw_ends([end for link in plan.links for end in link.ends])
    heading("due")
    table(("action", "on"), ((step.action, step.on) for step in plan.due))
    heading("waiting")
    table(("action", "on", "until", "why"), ((w.action, w.on, w.until, w.why) for w in plan.waiting))
    if plan.breakers:
        heading("clusters that have failed")
        table(
            ("cluster", "breaker", "failures", "tried again", "error"),
            ((name, b.state, b.failures, b.retry_at, b.error) for name, b in plan.breakers.items()),
        )
