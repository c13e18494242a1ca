"""Clusters: deployments and their starts, limits, labels, states with reasons, drain, probes; audit.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STEPS = (
    """
    ALTER TABLE clusters
        ADD incarnation text NOT NULL DEFAULT '',
        ADD portal jsonb,
        ADD state_since timestamptz NOT NULL DEFAULT now(),
        ADD state_reason text NOT NULL DEFAULT '',
        ADD load_bandwidth_in bigint NOT NULL DEFAULT 0,
        ADD load_bandwidth_out bigint NOT NULL DEFAULT 0,
        ADD load_modules jsonb NOT NULL DEFAULT '{}',
        ADD limit_participants integer,
        ADD limit_conferences integer,
        ADD limit_bandwidth_in bigint,
        ADD limit_bandwidth_out bigint,
        ADD labels jsonb NOT NULL DEFAULT '{}',
        ADD cost double precision NOT NULL DEFAULT 0,
        ADD ping_url text,
        ADD latitude double precision,
        ADD longitude double precision,
        ADD drain_since timestamptz,
        ADD drain_deadline timestamptz,
        ADD drain_reason text,
        ADD blocked_at timestamptz,
        ADD blocked_reason text,
        ADD probe_due_at timestamptz,
        ADD probe_failures integer NOT NULL DEFAULT 0,
        ADD probe_error text
    """,
    # What was called instance said which start it was.
    "UPDATE clusters SET incarnation = instance",
    "CREATE INDEX clusters_probe_idx ON clusters (probe_due_at) WHERE probe_due_at IS NOT NULL",
    "DROP INDEX clusters_online_lease_idx",
    "ALTER TABLE clusters SET (fillfactor = 60)",
    """
    ALTER TABLE cluster_capacity
        ADD count integer NOT NULL DEFAULT 1
            CONSTRAINT cluster_capacity_count_check CHECK (count >= 1),
        ADD capacity_limit integer
            CONSTRAINT cluster_capacity_limit_check CHECK (capacity_limit >= 0),
        ADD told_at timestamptz NOT NULL DEFAULT now()
    """,
    """
    CREATE TABLE early_rooms (
        cluster text NOT NULL,
        room text NOT NULL,
        token bytea NOT NULL,
        reported_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT early_rooms_pkey PRIMARY KEY (cluster, room)
    )
    """,
    "CREATE INDEX early_rooms_age_idx ON early_rooms (reported_at)",
    """
    CREATE TABLE audit (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_pkey PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        actor text NOT NULL,
        subject text NOT NULL,
        action text NOT NULL,
        before jsonb,
        after jsonb
    )
    """,
    "CREATE INDEX audit_subject_idx ON audit (subject, id)",
)


def upgrade() -> None:
    for statement in _STEPS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
