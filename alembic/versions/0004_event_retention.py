"""what retention has removed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEPT = sa.text("finished_at IS NOT NULL AND events_gone_at IS NULL")
HALF_REMOVED = (
    "DELETE FROM run_events WHERE EXISTS (SELECT 1 FROM runs WHERE runs.tenant_id = run_events.tenant_id"
    " AND runs.run_id = run_events.run_id AND events_gone_upto IS NOT NULL AND events_gone_at IS NULL)"
)


def upgrade() -> None:
    """Go forward. The columns are added in place: `runs` keeps its rows, and is not copied."""
    op.add_column("runs", sa.Column("events_gone_upto", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("events_gone_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_runs_retention", "runs", ["tenant_id", "finished_at"], sqlite_where=KEPT, postgresql_where=KEPT)


def downgrade() -> None:
    """Go back. What was being removed is removed to its end: nothing would tell the rest from a whole log."""
    op.execute(HALF_REMOVED)
    op.drop_index("ix_runs_retention", table_name="runs")
    op.drop_column("runs", "events_gone_at")
    op.drop_column("runs", "events_gone_upto")
