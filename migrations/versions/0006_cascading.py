"""Cascading that heals: how links are ordered, who is displaced, since when a placement is deserted.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LINKS = (
    """
    ALTER TABLE links
        ADD COLUMN via text NOT NULL DEFAULT 'driver'
            CONSTRAINT links_via_check CHECK (via IN ('driver', 'agent')),
        ADD COLUMN bridges jsonb,
        ADD COLUMN bridges_at timestamptz,
        ADD COLUMN orders integer NOT NULL DEFAULT 0
    """,
)

_DISPLACED = (
    """
    CREATE TABLE displaced (
        conference text NOT NULL,
        cluster text NOT NULL,
        participant text NOT NULL,
        user_name text NOT NULL,
        role text NOT NULL,
        since timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT displaced_pkey PRIMARY KEY (conference, cluster, participant),
        CONSTRAINT displaced_placement_fkey FOREIGN KEY (conference, cluster)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX displaced_cluster_idx ON displaced (cluster)",
)

# People come and go in many ways, and none may be forgotten. The triggers that note when a conference became
# empty come before these, by their names, and lock it: so of two who leave at once the later one sees that
# the other is gone.
_DESERTED = (
    "ALTER TABLE placements ADD COLUMN empty_since timestamptz DEFAULT now()",
    # now() above gives the rows that are there one value without rewriting them.
    "ALTER TABLE placements ALTER COLUMN empty_since SET DEFAULT clock_timestamp()",
    """
    UPDATE placements SET empty_since = NULL WHERE EXISTS (
        SELECT FROM participants
        WHERE participants.conference = placements.conference AND participants.cluster = placements.cluster
    )
    """,
    """
    CREATE FUNCTION placements_peopled() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE placements SET empty_since = NULL
            WHERE (conference, cluster) IN (SELECT DISTINCT conference, cluster FROM changed)
            AND empty_since IS NOT NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION placements_deserted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE placements SET empty_since = clock_timestamp()
            WHERE (conference, cluster) IN (SELECT DISTINCT conference, cluster FROM changed)
            AND empty_since IS NULL
            AND NOT EXISTS (
                SELECT FROM participants
                WHERE participants.conference = placements.conference
                AND participants.cluster = placements.cluster
            );
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER placements_participants_came AFTER INSERT ON participants
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION placements_peopled()
    """,
    """
    CREATE TRIGGER placements_participants_left AFTER DELETE ON participants
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION placements_deserted()
    """,
)


def upgrade() -> None:
    for statement in (*_LINKS, *_DISPLACED, *_DESERTED):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
