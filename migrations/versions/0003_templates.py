"""Templates with versions; what a conference knows of itself.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE templates (
        name text NOT NULL,
        version integer NOT NULL CONSTRAINT templates_version_check CHECK (version >= 0),
        body jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        retired_at timestamptz,
        CONSTRAINT templates_pkey PRIMARY KEY (name, version)
    )
    """,
    # Version 0, all defaults: conferences from before there were templates have it.
    "INSERT INTO templates (name, version, body) VALUES ('default', 0, '{}')",
    """
    ALTER TABLE conferences
        ADD COLUMN template text NOT NULL DEFAULT 'default',
        ADD COLUMN template_version integer NOT NULL DEFAULT 0,
        ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN locked boolean NOT NULL DEFAULT false,
        ADD COLUMN participant_limit integer NOT NULL DEFAULT -1,
        ADD COLUMN empty_ttl integer NOT NULL DEFAULT 86400,
        ADD COLUMN empty_since timestamptz DEFAULT now(),
        ADD COLUMN expires_at timestamptz,
        ADD CONSTRAINT conferences_template_fkey FOREIGN KEY (template, template_version)
            REFERENCES templates (name, version)
    """,
    # now() above gives the rows that are there one value without rewriting them.
    "ALTER TABLE conferences ALTER COLUMN empty_since SET DEFAULT clock_timestamp()",
    """
    CREATE FUNCTION conferences_set_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.expires_at := CASE WHEN NEW.empty_ttl > 0
            THEN NEW.empty_since + make_interval(secs => NEW.empty_ttl) END;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER conferences_expiry BEFORE INSERT OR UPDATE OF empty_since, empty_ttl ON conferences
        FOR EACH ROW EXECUTE FUNCTION conferences_set_expiry()
    """,
    """
    UPDATE conferences SET empty_since = NULL
    WHERE EXISTS (SELECT FROM participants WHERE participants.conference = conferences.id)
    """,
    "UPDATE conferences SET empty_ttl = empty_ttl WHERE empty_since IS NOT NULL",
    # Whoever leaves may be the last one: of two that leave at once, the later one must see that the other is
    # gone. So the conference is locked before anything is looked at, and looked at in a statement of its own.
    """
    CREATE FUNCTION participants_came() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM conferences WHERE id IN (SELECT conference FROM changed)
            ORDER BY id FOR NO KEY UPDATE;
        UPDATE conferences SET empty_since = NULL
            WHERE id IN (SELECT conference FROM changed) AND empty_since IS NOT NULL
            AND EXISTS (SELECT FROM participants WHERE participants.conference = conferences.id);
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION participants_left() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM conferences WHERE id IN (SELECT conference FROM changed)
            ORDER BY id FOR NO KEY UPDATE;
        UPDATE conferences SET empty_since = clock_timestamp()
            WHERE id IN (SELECT conference FROM changed) AND empty_since IS NULL
            AND NOT EXISTS (SELECT FROM participants WHERE participants.conference = conferences.id);
        RETURN NULL;
    END $$
    """,
    # Triggers run in the order of their names: these come before what counts seats in a cluster, as whoever
    # reports a participant has locked the conference before that, too.
    """
    CREATE TRIGGER conferences_participants_came AFTER INSERT ON participants
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION participants_came()
    """,
    """
    CREATE TRIGGER conferences_participants_left AFTER DELETE ON participants
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION participants_left()
    """,
    "CREATE INDEX conferences_created_idx ON conferences (created_at, id)",
    "DROP INDEX conferences_active_idx",
    "CREATE INDEX conferences_template_idx ON conferences (template, created_at, id)",
    "CREATE INDEX conferences_metadata_idx ON conferences USING gin (metadata jsonb_path_ops)",
    "CREATE INDEX conferences_expiry_idx ON conferences (expires_at) WHERE state = 'active'",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
