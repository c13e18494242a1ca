"""What agents can speak, and what they say of their links.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


_WIRES = (
    "ALTER TABLE agents ADD COLUMN wires text[] NOT NULL DEFAULT '{}'",
    # What planning knows of a round trip, so that it is woken when much of it is not true any more.
    "ALTER TABLE round_trips ADD COLUMN planned_ms double precision",
    "ALTER TABLE round_trips ADD COLUMN planned_at timestamptz",
    # Where links pass on, whoever serves the conference is told what lies behind each: all of them are woken.
    """
    CREATE OR REPLACE FUNCTION agents_linked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('causeway_agent', a.agent || ' ' || a.conference)
            FROM changed c
                JOIN assignments a ON a.conference = c.conference
                LEFT JOIN conferences k ON k.id = c.conference
                LEFT JOIN templates t ON t.name = k.template AND t.version = k.template_version
            WHERE a.cluster IN (c.dialer, c.listener) OR t.body -> 'topology' ->> 'kind' IN ('tree', 'star');
        RETURN NULL;
    END $$
    """,
)

_FIGURES = (
    # What agents measure: told every few seconds, and worth nothing after a crash of the database.
    """
    CREATE UNLOGGED TABLE agent_figures (
        agent text PRIMARY KEY REFERENCES agents ON DELETE CASCADE,
        bridges jsonb NOT NULL,
        told_at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE UNLOGGED TABLE link_figures (
        conference text NOT NULL,
        cluster text NOT NULL,
        peer text NOT NULL,
        kind text NOT NULL,
        agent text NOT NULL,
        figures jsonb NOT NULL,
        told_at timestamptz NOT NULL,
        PRIMARY KEY (conference, cluster, peer, kind),
        CONSTRAINT link_figures_placement_fkey FOREIGN KEY (conference, cluster)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    ) WITH (fillfactor = 50)
    """,
)


def upgrade() -> None:
    """Make what is new."""
    for statement in (*_WIRES, *_FIGURES):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
