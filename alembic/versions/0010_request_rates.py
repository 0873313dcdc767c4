"""request_rates: what callers have left of their rates, for all processes on a Postgres."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "request_rates",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("full_at", sa.Float(), nullable=False),
        sa.Column("taken", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "bucket", name="pk_request_rates"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE request_rates SET UNLOGGED")  # a bucket that is lost in a crash is a full one
        op.execute("ALTER TABLE request_rates SET (fillfactor = 50)")  # its rows change in place, and often


def downgrade() -> None:
    """Go back: every bucket is forgotten."""
    op.drop_table("request_rates")
