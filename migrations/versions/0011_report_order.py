"""Which of two reports of a cluster is the newer one.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Not a part of `clusters`, which heartbeats write all the time. No foreign key either: what was said of a
# thing that is no more has to be remembered, so that what was said before is not believed afterwards.
_ORDER = """
    CREATE TABLE report_order (
        cluster text NOT NULL,
        room text NOT NULL,
        thing text NOT NULL,
        epoch bigint NOT NULL,
        number bigint NOT NULL,
        gone bigint NOT NULL DEFAULT 0,
        told_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT report_order_pkey PRIMARY KEY (cluster, room, thing)
    ) WITH (fillfactor = 80)
"""


def upgrade() -> None:
    op.execute(_ORDER)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
