"""Placement: seats, reservations, decisions behind joins, and answers kept for Idempotency-Key.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE seats (
        cluster text NOT NULL,
        participants integer NOT NULL DEFAULT 0,
        reserved integer NOT NULL DEFAULT 0,
        conferences integer NOT NULL DEFAULT 0,
        CONSTRAINT seats_pkey PRIMARY KEY (cluster),
        CONSTRAINT seats_cluster_fkey FOREIGN KEY (cluster) REFERENCES clusters (id) ON DELETE CASCADE
    ) WITH (fillfactor = 20)
    """,
    """
    CREATE TABLE reservations (
        conference text NOT NULL,
        cluster text NOT NULL,
        user_name text NOT NULL,
        id bigint NOT NULL,
        made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz NOT NULL,
        CONSTRAINT reservations_pkey PRIMARY KEY (conference, cluster, user_name, id)
    )
    """,
    "CREATE INDEX reservations_expires_at_idx ON reservations (expires_at)",
    """
    CREATE TABLE decisions (
        conference text NOT NULL,
        id bigint GENERATED ALWAYS AS IDENTITY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        body bytea NOT NULL,
        CONSTRAINT decisions_pkey PRIMARY KEY (conference, id)
    )
    """,
    """
    CREATE TABLE roster (
        id boolean NOT NULL DEFAULT true CONSTRAINT roster_single_check CHECK (id),
        version bigint NOT NULL DEFAULT 1,
        CONSTRAINT roster_pkey PRIMARY KEY (id)
    )
    """,
    "INSERT INTO roster DEFAULT VALUES",
    """
    CREATE TABLE kept_answers (
        caller text NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        answer bytea,
        claim bigint NOT NULL,
        claimed_until timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT kept_answers_pkey PRIMARY KEY (caller, key)
    )
    """,
    "CREATE INDEX kept_answers_expires_at_idx ON kept_answers (expires_at)",
)

# What is taken in a cluster is counted where it changes, whoever changes it and for whatever reason.
_SEATS = (
    """
    INSERT INTO seats (cluster, participants, conferences)
    SELECT id, (SELECT count(*) FROM participants WHERE cluster = clusters.id),
        (SELECT count(*) FROM placements WHERE cluster = clusters.id)
    FROM clusters
    """,
    """
    CREATE FUNCTION clusters_have_seats() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO seats (cluster) VALUES (NEW.id) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER clusters_seats AFTER INSERT ON clusters
        FOR EACH ROW EXECUTE FUNCTION clusters_have_seats()
    """,
    *(
        f"""
        CREATE FUNCTION {table}_{what}_seats() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE seats SET {column} = {column} {sign} n
                FROM (SELECT cluster, count(*) AS n FROM changed GROUP BY cluster ORDER BY cluster) AS counted
                WHERE seats.cluster = counted.cluster;
            RETURN NULL;
        END $$
        """  # noqa: S608 - names from the table below
        for table, column in (
            ("participants", "participants"),
            ("reservations", "reserved"),
            ("placements", "conferences"),
        )
        for what, sign in (("take", "+"), ("free", "-"))
    ),
    *(
        f"""
        CREATE TRIGGER {table}_{what}_seats AFTER {event} ON {table}
            REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {table}_{what}_seats()
        """
        for table in ("participants", "reservations", "placements")
        for what, event, rows in (("take", "INSERT", "NEW"), ("free", "DELETE", "OLD"))
    ),
)

# Replicas remember the clusters; by this number they notice that what they remember is no longer true. It is
# counted when the transaction commits, so that registrations do not wait for each other. What every heartbeat
# changes does not count.
_REMEMBERED = (
    "region, driver, rest_url, service_id, service_key, incarnation, portal, epoch, state, "
    "limit_participants, limit_conferences, limit_bandwidth_in, limit_bandwidth_out, labels, cost, "
    "ping_url, latitude, longitude, drain_since, blocked_at"
)
_ROSTER = (
    """
    CREATE FUNCTION roster_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE roster SET version = version + 1;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER clusters_roster_new AFTER INSERT OR DELETE ON clusters
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION roster_changed()
    """,
    f"""
    CREATE CONSTRAINT TRIGGER clusters_roster_changed AFTER UPDATE ON clusters
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (({", ".join(f"OLD.{c}" for c in _REMEMBERED.split(", "))})
            IS DISTINCT FROM ({", ".join(f"NEW.{c}" for c in _REMEMBERED.split(", "))}))
        EXECUTE FUNCTION roster_changed()
    """,
    """
    CREATE CONSTRAINT TRIGGER cluster_capacity_roster AFTER INSERT OR DELETE ON cluster_capacity
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION roster_changed()
    """,
    """
    CREATE FUNCTION conferences_forget_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM decisions WHERE conference = OLD.id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER conferences_decisions AFTER DELETE ON conferences
        FOR EACH ROW EXECUTE FUNCTION conferences_forget_decisions()
    """,
)


def upgrade() -> None:
    for statement in (*_TABLES, *_SEATS, *_ROSTER):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
