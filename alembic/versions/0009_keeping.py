"""Indexes for what is kept no longer: runs without events, by their end; whole states, by their age."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CLOSED = sa.text("events_gone_at IS NOT NULL")
WHOLE = sa.text("snapshot IS NOT NULL")


def upgrade() -> None:
    """Go forward. Neither index has anything of a run that is under way, nor of most revisions."""
    op.create_index(
        "ix_runs_closed", "runs", ["tenant_id", "finished_at"], sqlite_where=CLOSED, postgresql_where=CLOSED
    )
    op.create_index(
        "ix_session_revisions_age",
        "session_revisions",
        ["tenant_id", "created_at", "session_id"],
        sqlite_where=WHOLE,
        postgresql_where=WHOLE,
    )


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_session_revisions_age", table_name="session_revisions")
    op.drop_index("ix_runs_closed", table_name="runs")
