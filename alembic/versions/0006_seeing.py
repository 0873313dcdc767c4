"""The trace that a run belongs to, and an index of those that wait by their age."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WAITING = sa.text("status = 'queued'")


def upgrade() -> None:
    """Go forward. The column is added in place: `runs` keeps its rows, and is not copied."""
    op.add_column("runs", sa.Column("traceparent", sa.String(), nullable=True))
    op.create_index("ix_runs_waiting", "runs", ["created_at"], sqlite_where=WAITING, postgresql_where=WAITING)


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_runs_waiting", table_name="runs")
    op.drop_column("runs", "traceparent")
