"""The registry's tables, as the migrations leave them (a test compares both), a file for each subject.

Every time is the database's own clock. Cluster and conference ids are the API's; secrets are sealed by
control.security.vault before they come here. These modules know shapes only, no rules.
"""

from __future__ import annotations

from control.registry.tables.access import audit, credentials, kept_answers, signing_keys
from control.registry.tables.agents import agent_figures, agents, assignments, link_figures, round_trips
from control.registry.tables.base import metadata
from control.registry.tables.clusters import (
    cluster_capacity,
    clusters,
    early_rooms,
    report_order,
    roster,
    seats,
)
from control.registry.tables.conferences import (
    conferences,
    dirty_conferences,
    displaced,
    links,
    participants,
    placements,
    streams,
    templates,
)
from control.registry.tables.events import (
    conference_checkpoints,
    conference_events,
    conference_heads,
    former_conferences,
    pending_events,
)
from control.registry.tables.joins import decisions, reservations
from control.registry.tables.replicas import caches, duties, replicas, schema_bounds
from control.registry.tables.webhooks import webhook_deliveries, webhook_lanes, webhooks

__all__ = [
    "agent_figures",
    "agents",
    "assignments",
    "audit",
    "caches",
    "cluster_capacity",
    "clusters",
    "conference_checkpoints",
    "conference_events",
    "conference_heads",
    "conferences",
    "credentials",
    "decisions",
    "dirty_conferences",
    "displaced",
    "duties",
    "early_rooms",
    "former_conferences",
    "kept_answers",
    "link_figures",
    "links",
    "metadata",
    "participants",
    "pending_events",
    "placements",
    "replicas",
    "report_order",
    "reservations",
    "roster",
    "round_trips",
    "schema_bounds",
    "seats",
    "signing_keys",
    "streams",
    "templates",
    "webhook_deliveries",
    "webhook_lanes",
    "webhooks",
]
