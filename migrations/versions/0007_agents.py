"""Agents, what they are assigned, and the round trips they measure.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE agents (
        id text NOT NULL CONSTRAINT agents_pkey PRIMARY KEY,
        cluster text NOT NULL,
        region text NOT NULL,
        kinds text[] NOT NULL,
        addresses jsonb NOT NULL,
        capacity_conferences integer NOT NULL
            CONSTRAINT agents_capacity_check CHECK (capacity_conferences >= 0),
        version text NOT NULL,
        protocol integer NOT NULL,
        instance text NOT NULL,
        epoch bigint NOT NULL,
        state text NOT NULL CONSTRAINT agents_state_check CHECK (state IN ('online', 'lost', 'unregistered')),
        state_since timestamptz NOT NULL DEFAULT now(),
        registered_at timestamptz NOT NULL DEFAULT now(),
        last_seen_at timestamptz NOT NULL,
        lease_expires_at timestamptz NOT NULL,
        drain_since timestamptz,
        channel uuid,
        desired_version bigint NOT NULL DEFAULT 0,
        acked_version bigint,
        refused jsonb NOT NULL DEFAULT '[]',
        load jsonb NOT NULL DEFAULT '{}'
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX agents_cluster_idx ON agents (cluster)",
    """
    CREATE TABLE assignments (
        conference text NOT NULL,
        cluster text NOT NULL,
        kind text NOT NULL CONSTRAINT assignments_kind_check CHECK (kind IN ('event', 'media', 'recorder')),
        agent text NOT NULL
            CONSTRAINT assignments_agent_fkey REFERENCES agents (id) ON DELETE CASCADE,
        assigned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT assignments_pkey PRIMARY KEY (conference, cluster, kind),
        CONSTRAINT assignments_placement_fkey FOREIGN KEY (conference, cluster)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX assignments_agent_idx ON assignments (agent)",
    """
    CREATE TABLE round_trips (
        from_cluster text NOT NULL,
        to_cluster text NOT NULL,
        ms double precision NOT NULL,
        jitter_ms double precision NOT NULL,
        measured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT round_trips_pkey PRIMARY KEY (from_cluster, to_cluster)
    ) WITH (fillfactor = 70)
    """,
)

# An agent's desired state is made of its assignments, their links and the tokens of the rooms at the links'
# other ends. Whatever changes one of these wakes the agent's channel, which looks for itself what is new: no
# row of the agent is locked for it. The payload is `<agent> <conference>`, or an agent alone.
_NOTICES = (
    """
    CREATE FUNCTION agents_assigned() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('causeway_agent', agent || ' ' || conference) FROM changed;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER agents_assignments_made AFTER INSERT ON assignments
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_assigned()
    """,
    """
    CREATE TRIGGER agents_assignments_ended AFTER DELETE ON assignments
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_assigned()
    """,
    """
    CREATE TRIGGER agents_assignments_given AFTER UPDATE ON assignments
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_assigned()
    """,
    """
    CREATE TRIGGER agents_assignments_taken AFTER UPDATE ON assignments
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_assigned()
    """,
    """
    CREATE FUNCTION agents_linked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('causeway_agent', a.agent || ' ' || a.conference)
            FROM changed c JOIN assignments a
                ON a.conference = c.conference AND a.cluster IN (c.dialer, c.listener);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER agents_links_made AFTER INSERT ON links
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_linked()
    """,
    """
    CREATE TRIGGER agents_links_ended AFTER DELETE ON links
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION agents_linked()
    """,
    # Reports change links all the time, and nothing that an agent is told.
    """
    CREATE FUNCTION agents_relinked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('causeway_agent', a.agent || ' ' || a.conference)
            FROM (
                SELECT conference, dialer, listener, via, bridges, orders FROM new_links
                EXCEPT
                SELECT conference, dialer, listener, via, bridges, orders FROM old_links
            ) c JOIN assignments a
                ON a.conference = c.conference AND a.cluster IN (c.dialer, c.listener);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER agents_links_changed AFTER UPDATE ON links
        REFERENCING OLD TABLE AS old_links NEW TABLE AS new_links
        FOR EACH STATEMENT EXECUTE FUNCTION agents_relinked()
    """,
    """
    CREATE FUNCTION agents_readmitted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('causeway_agent', a.agent || ' ' || a.conference)
            FROM links l JOIN assignments a ON a.conference = l.conference AND a.cluster = l.dialer
            WHERE l.conference = NEW.conference AND l.listener = NEW.cluster;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER agents_rooms_opened AFTER UPDATE OF token ON placements
        FOR EACH ROW WHEN (OLD.token IS DISTINCT FROM NEW.token) EXECUTE FUNCTION agents_readmitted()
    """,
)


def upgrade() -> None:
    for statement in (*_TABLES, *_NOTICES):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
