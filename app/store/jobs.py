"""The job queue on Postgres: Procrastinate's tables, which one of our migrations makes."""

from typing import Any

from app.store.database import Transaction
from app.store.tables import RunRow, RunTable, table_of
from app.workflow.encoding import encode

QUEUE = "runs"
TASK = "execute_run"

_NAMES = [column.name for column in table_of(RunTable).columns]
_RUN_COLUMNS = ", ".join(f"runs.{name}" for name in _NAMES)
_DEFER = {
    "postgresql": (
        "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW($1::text, $2::text, 0, NULL, NULL, $3::jsonb, NULL)]"
        "::procrastinate_job_to_defer_v1[])"
    )
}
_DEAD = {
    "postgresql": (
        # The tenant is what leads into the index: without it every run there ever was is read, once a second.
        f"SELECT {_RUN_COLUMNS} FROM runs"  # noqa: S608
        " WHERE tenant_id = ANY($1::text[]) AND status = 'running' AND NOT EXISTS (SELECT 1 FROM workers"
        " WHERE workers.worker_id = runs.worker_id AND heartbeat_at > now() - make_interval(secs => $2))"
        " ORDER BY run_id FOR NO KEY UPDATE OF runs SKIP LOCKED"
    )
}
_STRANDED = {
    "postgresql": (
        # The jobs are read once and hashed: for each run anew would be as many times as there are jobs.
        "WITH alive AS MATERIALIZED ("  # noqa: S608
        "  SELECT coalesce(job.args->>'run_id', '') AS run_id FROM procrastinate_jobs AS job"
        "  WHERE job.queue_name = $1 AND (job.status = 'todo' OR (job.status = 'doing' AND EXISTS ("
        "   SELECT 1 FROM procrastinate_workers AS worker WHERE worker.id = job.worker_id"
        "   AND worker.last_heartbeat > now() - make_interval(secs => $2)))))"
        f" SELECT {_RUN_COLUMNS} FROM runs JOIN sessions USING (tenant_id, session_id)"
        " WHERE runs.status = 'queued' AND sessions.active_run_id = runs.run_id"
        " AND runs.run_id NOT IN (SELECT run_id FROM alive)"
        " FOR NO KEY UPDATE OF runs SKIP LOCKED"
    )
}
_SWEEP = {
    "postgresql": (
        "DELETE FROM procrastinate_jobs AS job WHERE job.queue_name = $1 AND job.status = 'doing' AND NOT EXISTS ("
        " SELECT 1 FROM procrastinate_workers AS worker WHERE worker.id = job.worker_id"
        " AND worker.last_heartbeat > now() - make_interval(secs => $2))"
    )
}


def defer_run(transaction: Transaction, run: RunRow) -> None:
    """Have any worker execute the run, if the transaction is committed."""
    arguments = encode({"tenant": run.tenant_id, "run_id": run.run_id}).decode()
    transaction.driver(_DEFER, (QUEUE, TASK, arguments))


def runs_of_dead_workers(transaction: Transaction, tenants: list[str], *, lease_seconds: float) -> list[RunRow]:
    """Running runs whose worker has been silent for longer than its lease, locked; others may be taking some too."""
    return [_run_of(row) for row in transaction.driver(_DEAD, (tenants, lease_seconds))]


def runs_without_job(transaction: Transaction, *, lease_seconds: float) -> list[RunRow]:
    """Ready runs that no live job stands for, locked: their job was lost with the worker that had fetched it."""
    return [_run_of(row) for row in transaction.driver(_STRANDED, (QUEUE, lease_seconds))]


def delete_dead_jobs(transaction: Transaction, *, lease_seconds: float) -> None:
    """Remove the jobs that dead workers had fetched; the runs are ours to recover."""
    transaction.driver(_SWEEP, (QUEUE, lease_seconds))


def _run_of(row: tuple[Any, ...]) -> RunRow:
    return RunRow.of(dict(zip(_NAMES, row, strict=True)))
