"""The registry: credentials, clusters, conferences and what serves them.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out rather than taken from control.registry.tables: that file moves on, this one must not.
_TABLES = (
    """
    CREATE TABLE credentials (
        id text CONSTRAINT credentials_pkey PRIMARY KEY,
        kind text NOT NULL
            CONSTRAINT credentials_kind_check CHECK (kind IN ('enrolment', 'application', 'operator')),
        secret_hash bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        revoked_at timestamptz
    )
    """,
    """
    CREATE TABLE clusters (
        id text CONSTRAINT clusters_pkey PRIMARY KEY,
        region text NOT NULL,
        driver text NOT NULL,
        rest_url text NOT NULL,
        service_id text NOT NULL,
        service_key bytea NOT NULL,
        instance text NOT NULL,
        event_bridge jsonb,
        media_bridge jsonb,
        state text NOT NULL
            CONSTRAINT clusters_state_check CHECK (state IN ('online', 'lost', 'unregistered')),
        epoch bigint NOT NULL,
        lease_expires_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        unregistered_at timestamptz,
        reports_links boolean NOT NULL DEFAULT false,
        load_participants integer NOT NULL DEFAULT 0,
        load_streams integer NOT NULL DEFAULT 0,
        load_cpu double precision NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX clusters_online_lease_idx ON clusters (lease_expires_at) WHERE state = 'online'",
    """
    CREATE TABLE cluster_capacity (
        cluster text NOT NULL,
        module text NOT NULL,
        added_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT cluster_capacity_pkey PRIMARY KEY (cluster, module)
    )
    """,
    """
    CREATE TABLE conferences (
        id text CONSTRAINT conferences_pkey PRIMARY KEY,
        state text NOT NULL DEFAULT 'active'
            CONSTRAINT conferences_state_check CHECK (state IN ('active', 'ending')),
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX conferences_active_idx ON conferences (created_at, id) WHERE state = 'active'",
    """
    CREATE TABLE placements (
        conference text NOT NULL
            CONSTRAINT placements_conference_fkey REFERENCES conferences (id) ON DELETE CASCADE,
        cluster text NOT NULL CONSTRAINT placements_cluster_fkey REFERENCES clusters (id),
        ordinal integer NOT NULL CONSTRAINT placements_ordinal_check CHECK (ordinal >= 1),
        state text NOT NULL DEFAULT 'wanted'
            CONSTRAINT placements_state_check CHECK (state IN ('wanted', 'ready', 'lost')),
        room text,
        token bytea,
        attempts integer NOT NULL DEFAULT 0,
        retry_at timestamptz,
        error text,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT placements_pkey PRIMARY KEY (conference, cluster),
        CONSTRAINT placements_ordinal_key UNIQUE (conference, ordinal)
    )
    """,
    "CREATE INDEX placements_cluster_idx ON placements (cluster)",
    """
    CREATE TABLE links (
        conference text NOT NULL,
        dialer text NOT NULL,
        listener text NOT NULL,
        state text NOT NULL DEFAULT 'wanted'
            CONSTRAINT links_state_check CHECK (state IN ('wanted', 'requested', 'up', 'down')),
        since timestamptz NOT NULL DEFAULT now(),
        attempts integer NOT NULL DEFAULT 0,
        retry_at timestamptz,
        error text,
        order_id uuid,
        CONSTRAINT links_pkey PRIMARY KEY (conference, dialer, listener),
        CONSTRAINT links_ends_check CHECK (dialer <> listener),
        CONSTRAINT links_dialer_fkey FOREIGN KEY (conference, dialer)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE,
        CONSTRAINT links_listener_fkey FOREIGN KEY (conference, listener)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX links_dialer_idx ON links (dialer)",
    "CREATE INDEX links_listener_idx ON links (listener)",
    """
    CREATE TABLE participants (
        conference text NOT NULL,
        cluster text NOT NULL,
        id text NOT NULL,
        user_name text NOT NULL,
        role text NOT NULL,
        joined_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT participants_pkey PRIMARY KEY (conference, cluster, id),
        CONSTRAINT participants_placement_fkey FOREIGN KEY (conference, cluster)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX participants_cluster_idx ON participants (cluster)",
    """
    CREATE TABLE dirty_conferences (
        conference text CONSTRAINT dirty_conferences_pkey PRIMARY KEY
            CONSTRAINT dirty_conferences_conference_fkey REFERENCES conferences (id) ON DELETE CASCADE,
        version bigint NOT NULL DEFAULT 1,
        due_at timestamptz NOT NULL DEFAULT now(),
        claimed_by uuid,
        claimed_until timestamptz
    )
    """,
    "CREATE INDEX dirty_conferences_due_idx ON dirty_conferences (due_at)",
)


def upgrade() -> None:
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
