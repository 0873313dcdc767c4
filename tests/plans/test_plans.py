"""The plans of every statement that the routes lead to, on a full database of either kind."""

import pytest

from tests.plans import judging
from tests.plans.asking import Asked, ask_everything, ask_for_lists
from tests.plans.filling import Amounts, Filled, fill
from tests.plans.statements import Statements, recorded
from tests.support.server import running
from tests.support.tables import execute, query
from tests.support.waiting import until

KNOWN = {
    # A list by session and by status looks through the session's runs, newest first, until its page is full.
    "walks the session's runs by ix_runs_session for status": "ORDER BY runs.run_id DESC",
    # A run has few deliveries; SQLite, which knows that from ANALYZE, sorts them.
    "sorts what it finds of webhook_deliveries by ix_webhook_deliveries_run": "AND webhook_deliveries.status = ",
}
"""Troubles that we live with, and what the statement has in it."""
AGES = {f"{kind}_retention_days": 30 for kind in ("event", "run", "revision", "delivery")}
OLD_TABLES = ("run_events", "runs", "session_revisions", "webhook_deliveries")
LEFT = "SELECT run_id FROM runs WHERE finished_at IS NOT NULL LIMIT 1"
AMOUNTS = Amounts(sessions=3_000, old_runs=500, events=12_000, long_events=1_000)


@pytest.fixture
def filled(database_url: str) -> Filled:
    """The database, full."""
    found = fill(database_url, "asked", AMOUNTS)
    if not database_url.startswith("sqlite:"):
        judging.without_scans(database_url)
    return found


@pytest.fixture
def scanned(database_url: str, filled: Filled) -> dict[str, int]:
    """How often Postgres has scanned each growing table, up to the test."""
    return {} if database_url.startswith("sqlite:") else judging.scans(database_url)


def unknown_troubles(database_url: str, statements: Statements) -> list[str]:
    """What is wrong, and not known to be."""
    return [
        trouble
        for trouble in judging.troubles(database_url, statements)
        if not any(trouble.startswith(known) and sign in trouble for known, sign in KNOWN.items())
    ]


def jobs_left(database_url: str) -> int:
    """Jobs, where there are any: they go with the work, so that looking through them costs what is in hand."""
    if database_url.startswith("sqlite:"):
        return 0
    (row,) = query(database_url, "SELECT count(*) AS jobs FROM procrastinate_jobs")
    return int(row["jobs"])


async def test_no_statement_scans_a_growing_table(database_url: str, filled: Filled, scanned: dict[str, int]) -> None:
    with recorded() as statements:
        limits = {"limit_requests_per_second": 1000, "limit_requests_burst": 1000, "max_queued_runs_per_tenant": 1000}
        async with running(database_url, Asked, lease_seconds=2, webhook_retry_seconds="1,60", **limits) as client:
            await ask_everything(client, filled)
        async with running(database_url, Asked):  # a start looks for what was left
            pass
    for table in judging.GROWING:
        assert statements.about(table) or table == "procrastinate_jobs", f"nothing was seen of {table}"
    found = unknown_troubles(database_url, statements)
    assert found == [], "\n".join(found)
    execute(database_url, "ANALYZE")  # as somebody may, also where the service never does
    found = unknown_troubles(database_url, statements)
    assert found == [], "\n".join(found)
    if scanned:
        assert judging.scans(database_url) == scanned
    assert jobs_left(database_url) == 0, "there are jobs of runs that have ended"


async def test_what_is_old_is_found_and_removed_without_a_scan(database_url: str, filled: Filled) -> None:
    with recorded() as statements:
        async with running(database_url, Asked, **AGES):

            async def some_of_each() -> bool:
                return all(statements.about(table) for table in OLD_TABLES) and not query(database_url, LEFT)

            await until(some_of_each, seconds=90)
    found = unknown_troubles(database_url, statements)
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("index", "list_of"),
    [
        ("ix_runs_user", "runs"),
        ("ix_runs_status", "runs"),
        ("ix_runs_session", "runs"),
        ("ix_sessions_name", "sessions"),
        ("ix_sessions_created", "sessions"),
    ],
)
async def test_an_index_that_is_missing_is_missed(database_url: str, filled: Filled, index: str, list_of: str) -> None:
    execute(database_url, f"DROP INDEX {index}")
    with recorded() as statements:
        async with running(database_url, Asked) as client:
            await ask_for_lists(client, filled)
    found = judging.troubles(database_url, statements)
    assert any(f" {list_of} " in trouble or f"{list_of}:" in trouble for trouble in found), found
