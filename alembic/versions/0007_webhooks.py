"""webhooks, and what is on its way to them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

REGISTERED = sa.text("run_id IS NULL")
PENDING = sa.text("status = 'pending'")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go forward. The column is added in place: `runs` keeps its rows, and is not copied."""
    op.add_column("runs", sa.Column("webhooks", sa.Text(), nullable=True))
    op.create_table(
        "webhooks",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(), nullable=True),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", MOMENT, nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "webhook_id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="fk_webhooks_runs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_webhooks_run", "webhooks", ["tenant_id", "run_id", "webhook_id"])
    op.create_index("ix_webhooks_owner", "webhooks", ["tenant_id", "run_id", "user_id", "webhook_id"])
    op.create_index(
        "ix_webhooks_registered",
        "webhooks",
        ["tenant_id", "webhook_id"],
        sqlite_where=REGISTERED,
        postgresql_where=REGISTERED,
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name="pk_webhook_secrets"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "webhook_changes",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_webhook_changes"),
        sqlite_with_rowid=False,
    )
    _create_deliveries()


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=True),
        sa.Column("last_attempt_at", MOMENT, nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("delivered_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "delivery_id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_webhook_deliveries_runs",
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
    )
    for name, columns in {
        "ix_webhook_deliveries_webhook": ["tenant_id", "webhook_id", "delivery_id"],
        "ix_webhook_deliveries_run": ["tenant_id", "run_id", "delivery_id"],
        "ix_webhook_deliveries_created": ["created_at"],
    }.items():
        op.create_index(name, "webhook_deliveries", columns)
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["host", "next_attempt_at"],
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    )


def downgrade() -> None:
    """Go back: what was on its way does not arrive."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_changes")
    op.drop_table("webhook_secrets")
    op.drop_table("webhooks")
    op.drop_column("runs", "webhooks")
