"""schedules, and the ticks that runs were started for."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ON = sa.text("paused_at IS NULL")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "schedules",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("schedule_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("annotations", sa.Text(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=True),
        sa.Column("on_missed", sa.String(), nullable=False),
        sa.Column("on_busy", sa.String(), nullable=False),
        sa.Column("paused_at", MOMENT, nullable=True),
        sa.Column("next_run_at", MOMENT, nullable=True),
        sa.Column("last_run_id", sa.String(), nullable=True),
        sa.Column("last_run_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "schedule_id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_name", "schedules", ["tenant_id", "name"], unique=True)
    op.create_index("ix_schedules_due", "schedules", ["next_run_at"], sqlite_where=ON, postgresql_where=ON)
    op.create_table(
        "schedule_ticks",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("schedule_id", sa.String(), nullable=False),
        sa.Column("tick_at", MOMENT, nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "schedule_id", "tick_at", name="pk_schedule_ticks"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "schedule_id"],
            ["schedules.tenant_id", "schedules.schedule_id"],
            name="fk_schedule_ticks_schedules",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Go back: nothing is started by itself any more."""
    op.drop_table("schedule_ticks")
    op.drop_table("schedules")
