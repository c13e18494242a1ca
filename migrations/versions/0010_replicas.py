"""Replicas of control, and the duties that one of them has at a time.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_REPLICAS = (
    """
    CREATE TABLE replicas (
        id uuid NOT NULL CONSTRAINT replicas_pkey PRIMARY KEY,
        name text NOT NULL,
        version text NOT NULL,
        revision text NOT NULL,
        duties text[] NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        lease_expires_at timestamptz NOT NULL,
        stopped_at timestamptz,
        cleared_at timestamptz
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE duties (
        name text NOT NULL CONSTRAINT duties_pkey PRIMARY KEY,
        holder uuid,
        epoch bigint NOT NULL DEFAULT 0,
        since timestamptz
    )
    """,
    # Which programs can work with the schema: those that know this revision, or a newer one.
    """
    CREATE TABLE schema_bounds (
        id boolean NOT NULL DEFAULT true CONSTRAINT schema_bounds_single_check CHECK (id),
        oldest text NOT NULL,
        CONSTRAINT schema_bounds_pkey PRIMARY KEY (id)
    )
    """,
    "INSERT INTO schema_bounds (oldest) VALUES ('0005')",
    # Who asks the cluster just now, so that a probe is due again when its prober dies.
    "ALTER TABLE clusters ADD COLUMN probe_by uuid",
)

# What replicas remember of these tables is true as long as the number stays the same. It is counted when the
# transaction commits: before that nobody could read what is new, and writers do not wait for each other.
_CACHES = (
    """
    CREATE TABLE caches (
        name text NOT NULL CONSTRAINT caches_pkey PRIMARY KEY,
        version bigint NOT NULL DEFAULT 1
    )
    """,
    "INSERT INTO caches (name) VALUES ('credentials'), ('signing_keys')",
    """
    CREATE FUNCTION caches_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE caches SET version = version + 1 WHERE name = TG_ARGV[0];
        PERFORM pg_notify('causeway_cache', TG_ARGV[0]);
        RETURN NULL;
    END $$
    """,
    # When a key was last used is noted often, and changes nothing that is remembered.
    """
    CREATE CONSTRAINT TRIGGER credentials_changed AFTER UPDATE ON credentials
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN ((OLD.kind, OLD.secret_hash, OLD.scopes, OLD.revoked_at)
            IS DISTINCT FROM (NEW.kind, NEW.secret_hash, NEW.scopes, NEW.revoked_at))
        EXECUTE FUNCTION caches_changed('credentials')
    """,
    """
    CREATE CONSTRAINT TRIGGER credentials_removed AFTER DELETE ON credentials
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION caches_changed('credentials')
    """,
    """
    CREATE CONSTRAINT TRIGGER signing_keys_changed AFTER INSERT OR UPDATE OR DELETE ON signing_keys
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION caches_changed('signing_keys')
    """,
)


def upgrade() -> None:
    for statement in (*_REPLICAS, *_CACHES):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
