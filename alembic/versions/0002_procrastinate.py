"""The job queue on Postgres: Procrastinate's own tables, types and functions."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FUNCTIONS = "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'procrastinate\\_%'"
TABLES = ("procrastinate_events", "procrastinate_periodic_defers", "procrastinate_jobs", "procrastinate_workers")
TYPES = ("procrastinate_job_to_defer_v1", "procrastinate_job_event_type", "procrastinate_job_status")


def upgrade() -> None:
    """Make what the installed, locked version of the library says."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    from procrastinate.schema import SchemaManager

    # By the driver's own cursor: the script holds several statements, and percent signs that are no parameters.
    with connection.connection.cursor() as cursor:
        cursor.execute(SchemaManager.get_schema())


def downgrade() -> None:
    """Remove it."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    for table in TABLES:
        op.execute(f"DROP TABLE {table} CASCADE")
    for function in connection.execute(text(FUNCTIONS)).scalars().all():
        op.execute(f"DROP FUNCTION {function} CASCADE")
    for kind in TYPES:
        op.execute(f"DROP TYPE {kind}")
