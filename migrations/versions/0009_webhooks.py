"""Webhooks and what is still to be delivered to them, filled by a trigger on the event log.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE webhooks (
        id text NOT NULL CONSTRAINT webhooks_pkey PRIMARY KEY,
        url text NOT NULL,
        description text NOT NULL DEFAULT '',
        events text[] NOT NULL DEFAULT '{}',
        types text[] NOT NULL DEFAULT '{}',
        metadata jsonb NOT NULL DEFAULT '{}',
        secret bytea NOT NULL,
        previous_secret bytea,
        previous_until timestamptz,
        enabled boolean NOT NULL DEFAULT true,
        disabled_at timestamptz,
        disabled_reason text,
        created_at timestamptz NOT NULL DEFAULT now(),
        created_by text,
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        paused_until timestamptz,
        recovered_at timestamptz,
        last_success_at timestamptz,
        last_failure_at timestamptz,
        last_error text,
        CONSTRAINT webhooks_reason_check CHECK (disabled_reason IN ('operator', 'gone', 'failing'))
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE webhook_deliveries (
        webhook text NOT NULL,
        message uuid NOT NULL,
        conference text NOT NULL,
        seq bigint NOT NULL,
        kind text NOT NULL,
        at timestamptz NOT NULL,
        body jsonb NOT NULL,
        state text NOT NULL DEFAULT 'pending',
        queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        tries integer NOT NULL DEFAULT 0,
        tried_at timestamptz,
        due_at timestamptz,
        done_at timestamptz,
        status integer,
        error text,
        CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (webhook, message),
        CONSTRAINT webhook_deliveries_state_check CHECK (state IN ('pending', 'delivered', 'dead'))
    )
    """,
    "CREATE INDEX webhook_deliveries_at_idx ON webhook_deliveries (webhook, at, message)",
    """
    CREATE INDEX webhook_deliveries_pending_idx ON webhook_deliveries (webhook, conference, seq)
        WHERE state = 'pending'
    """,
    """
    CREATE INDEX webhook_deliveries_queued_idx ON webhook_deliveries (webhook, queued_at)
        WHERE state = 'pending'
    """,
    """
    CREATE INDEX webhook_deliveries_dead_idx ON webhook_deliveries (webhook, at, message)
        WHERE state = 'dead'
    """,
    """
    CREATE INDEX webhook_deliveries_done_idx ON webhook_deliveries (done_at)
        WHERE state <> 'pending'
    """,
    """
    CREATE TABLE webhook_lanes (
        webhook text NOT NULL,
        conference text NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        failed_at timestamptz,
        claimed_by uuid,
        claimed_until timestamptz,
        replica uuid,
        CONSTRAINT webhook_lanes_pkey PRIMARY KEY (webhook, conference)
    )
    """,
    """
    CREATE INDEX webhook_lanes_replica_idx ON webhook_lanes (replica) WHERE replica IS NOT NULL
    """,
    "CREATE INDEX webhook_lanes_due_idx ON webhook_lanes (webhook, due_at)",
    """
    CREATE TABLE former_conferences (
        id text NOT NULL CONSTRAINT former_conferences_pkey PRIMARY KEY,
        template text NOT NULL,
        metadata jsonb NOT NULL,
        ended_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX former_conferences_ended_at_idx ON former_conferences (ended_at)",
)

_FILLING = (
    # The last events of a conference are written when its row is gone, and filters ask for what it was.
    """
    CREATE FUNCTION conferences_remember() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO former_conferences AS former (id, template, metadata)
            VALUES (OLD.id, OLD.template, OLD.metadata)
            ON CONFLICT (id) DO UPDATE SET
                template = excluded.template, metadata = excluded.metadata, ended_at = excluded.ended_at;
        RETURN OLD;
    END $$
    """,
    """
    CREATE TRIGGER conferences_remember BEFORE DELETE ON conferences
        FOR EACH ROW EXECUTE FUNCTION conferences_remember()
    """,
    """
    CREATE FUNCTION webhook_takes(events text[], kind text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT events = '{}' OR kind = ANY (events) OR split_part(kind, '.', 1) || '.*' = ANY (events)
    $$
    """,
    # In the transaction of the event itself: a message is there if and only if what it tells of happened.
    """
    CREATE FUNCTION conference_events_to_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM webhooks WHERE enabled) THEN
            RETURN NULL;  -- so that events cost next to nothing where nobody asked for them
        END IF;
        WITH queued AS (
            INSERT INTO webhook_deliveries (webhook, message, conference, seq, kind, at, body)
            SELECT w.id, e.id, e.conference, e.seq, e.kind, e.at, e.body
            FROM webhooks AS w
                JOIN rows_now AS e ON webhook_takes(w.events, e.kind)
                LEFT JOIN conferences AS c ON c.id = e.conference
                LEFT JOIN former_conferences AS f ON f.id = e.conference
            WHERE w.enabled
                AND (w.types = '{}' OR coalesce(c.template, f.template) = ANY (w.types))
                AND (w.metadata = '{}' OR coalesce(c.metadata, f.metadata) @> w.metadata)
            RETURNING webhook, conference
        )
        INSERT INTO webhook_lanes AS lane (webhook, conference)
        SELECT DISTINCT webhook, conference FROM queued ORDER BY conference, webhook
        ON CONFLICT (webhook, conference) DO UPDATE SET version = lane.version + 1;
        IF FOUND THEN
            PERFORM pg_notify('causeway_webhook', '');
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER conference_events_to_webhooks AFTER INSERT ON conference_events
        REFERENCING NEW TABLE AS rows_now
        FOR EACH STATEMENT EXECUTE FUNCTION conference_events_to_webhooks()
    """,
)


def upgrade() -> None:
    for statement in (*_TABLES, *_FILLING):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
