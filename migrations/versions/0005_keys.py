"""Keys with names and scopes, and when they were last used; keys that sign join tokens.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEYS = (
    """
    ALTER TABLE credentials
        ADD COLUMN name text NOT NULL DEFAULT '',
        ADD COLUMN scopes text[],
        ADD COLUMN created_by text,
        ADD COLUMN last_used_at timestamptz
    """,
    "CREATE INDEX credentials_created_idx ON credentials (created_at, id)",
    """
    CREATE TABLE signing_keys (
        kid text NOT NULL CONSTRAINT signing_keys_pkey PRIMARY KEY,
        public text NOT NULL,
        private bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        active_from timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in _KEYS:
        op.execute(statement)
