"""Each migration goes up and down on both databases, keeps what stays, and is run once by however many want to."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from app import Workflow
from app.store.database import sync_url
from app.store.migrations import head_revision, migrate, migrations_folder
from app.store.tables import metadata
from tests.support import databases
from tests.support.ages import half_remove
from tests.support.cluster import run_command
from tests.support.server import running
from tests.support.tables import execute, query

AT_ONCE = 8


class Saver(Workflow):
    """Leaves something in every table."""

    async def run(self, number: int) -> str:
        await self.step(lambda: number, name="step")
        self.session_state["number"] = number
        return "done"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in which nothing is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        databases.skip_without_postgres()
        with databases.copy_of_postgres(None) as url:
            yield url


def on_connection(url: str, work: Callable[[Connection], Any]) -> Any:
    """Do it on a connection of its own."""
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        found = work(connection)
        connection.commit()
        return found


def configuration() -> Config:
    """As Alembic's own command line has it."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return config


def move(url: str, direction: Callable[[Config, str], None], revision: str) -> None:
    """Up or down to a revision, by Alembic itself."""
    config = configuration()

    def work(connection: Connection) -> None:
        config.attributes["connection"] = connection
        direction(config, revision)

    on_connection(url, work)


def tables_in(url: str) -> set[str]:
    """Names of the tables that are there."""
    return set(on_connection(url, lambda connection: inspect(connection).get_table_names()))


Contents: TypeAlias = dict[str, list[dict[str, str]]]


def contents(url: str) -> Contents:
    """Every row of every table of ours that is there, by column."""

    def work(connection: Connection) -> Contents:
        there = set(inspect(connection).get_table_names())
        return {
            table.name: [
                {column: str(value) for column, value in row.items()}
                for row in connection.execute(text(f"SELECT * FROM {table.name}")).mappings()
            ]
            for table in metadata.sorted_tables
            if table.name in there
        }

    found: Contents = on_connection(url, work)
    return found


def of_columns(rows: list[dict[str, str]], columns: set[str]) -> list[list[tuple[str, str]]]:
    """The rows in an order of their own, with these columns."""
    return sorted(sorted((column, row[column]) for column in columns) for row in rows)


def assert_kept(before: Contents, now: Contents) -> None:
    """Every row is there, with each column that both have."""
    for table in before.keys() & now.keys():
        columns = set.intersection(*(set(row) for row in before[table] + now[table])) if before[table] else set()
        assert of_columns(now[table], columns) == of_columns(before[table], columns), table


async def fill(url: str) -> None:
    """Runs, events, revisions, keys: some of each."""
    async with running(url, Saver) as client:
        for number in range(3):
            body = {"input": {"number": number}, "session_id": "s"}
            answer = await client.post(
                "/workflows/saver/runs", json=body, headers={"Prefer": "wait=20", "Idempotency-Key": f"{number}"}
            )
            assert answer.json()["status"] == "completed"


async def at_once(url: str) -> list[tuple[int, str]]:
    """What so many `millstream migrate` say that were started together."""
    environment = {"MILLSTREAM_DATABASE_URL": url}
    return await asyncio.gather(*(run_command(environment, "migrate") for _ in range(AT_ONCE)))


def test_the_newest_migration_is_what_alembic_says_it_is() -> None:
    script = ScriptDirectory.from_config(configuration())
    assert script.get_heads() == [head_revision()]
    assert len(script.get_bases()) == 1


def test_an_empty_database_comes_to_the_tables_of_the_model(empty_url: str) -> None:
    migrate(empty_url)
    assert query(empty_url, "SELECT version_num FROM alembic_version") == [{"version_num": head_revision()}]
    assert set(metadata.tables) <= tables_in(empty_url)
    migrate(empty_url)


def test_the_tables_are_those_of_the_model_and_no_migration_is_missing(database_url: str) -> None:
    def ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:
        return not (kind == "table" and name is not None and name.startswith("procrastinate_"))

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True, "include_object": ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert on_connection(database_url, differences) == []


async def test_down_and_up_again_keeps_the_rows_of_what_stays(database_url: str) -> None:
    await fill(database_url)
    before = contents(database_url)
    assert all(before[table] for table in ("sessions", "runs", "run_events", "session_revisions", "idempotency_keys"))
    script = ScriptDirectory.from_config(configuration())
    for revision in [one.revision for one in script.walk_revisions()][1:]:
        move(database_url, command.downgrade, revision)
        assert_kept(before, contents(database_url))
    for revision in reversed([one.revision for one in script.walk_revisions()]):
        move(database_url, command.upgrade, revision)
    assert contents(database_url).keys() == before.keys()
    assert_kept(before, contents(database_url))
    execute(database_url, "DELETE FROM idempotency_keys")
    await fill(database_url)  # and the service runs on it as before


async def test_down_leaves_no_part_of_a_log_that_was_being_removed(database_url: str) -> None:
    await fill(database_url)
    half, whole, _ = (row["run_id"] for row in query(database_url, "SELECT run_id FROM runs ORDER BY run_id"))
    half_remove(database_url, half, upto=2)
    move(database_url, command.downgrade, "0002")
    left = {row["run_id"] for row in query(database_url, "SELECT DISTINCT run_id FROM run_events")}
    assert half not in left
    assert whole in left
    migrate(database_url)
    async with running(database_url, Saver) as client:
        assert (await client.get(f"/runs/{half}/events")).status_code == 410
        assert len(await client.events(whole)) == 5
        assert (await client.get(f"/runs/{half}")).json()["content"] == "done"


def test_all_the_way_down_leaves_nothing(database_url: str) -> None:
    move(database_url, command.downgrade, "base")
    assert tables_in(database_url) == {"alembic_version"}
    if database_url.startswith("postgresql"):
        left = "SELECT proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public'"
        assert query(database_url, left) == []
        kinds = "SELECT typname FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace WHERE nspname = 'public'"
        assert {row["typname"] for row in query(database_url, kinds)} <= {"alembic_version", "_alembic_version"}
    migrate(database_url)
    assert set(metadata.tables) <= tables_in(database_url)


@pytest.mark.slow
async def test_many_migrate_an_empty_database_at_once(empty_url: str) -> None:
    answers = await at_once(empty_url)
    assert {status for status, _ in answers} == {0}, answers
    assert all(head_revision() in said for _, said in answers)
    assert query(empty_url, "SELECT version_num FROM alembic_version") == [{"version_num": head_revision()}]


@pytest.mark.slow
async def test_many_migrate_a_filled_database_at_once(database_url: str) -> None:
    await fill(database_url)
    script = ScriptDirectory.from_config(configuration())
    move(database_url, command.downgrade, script.get_bases()[0])
    before = contents(database_url)
    answers = await at_once(database_url)
    assert {status for status, _ in answers} == {0}, answers
    assert_kept(before, contents(database_url))


async def test_a_server_refuses_a_postgres_that_is_not_at_head_and_says_what_to_do(postgres_template: str) -> None:
    with databases.copy_of_postgres(None) as url:
        environment = {"MILLSTREAM_DATABASE_URL": url, "MILLSTREAM_PORT": "0"}
        for command_name in ("serve", "worker"):
            status, said = await run_command(environment, command_name)
            assert status != 0
            assert "has no tables" in said
            assert "millstream migrate" in said
            assert "Traceback" not in said
        migrate(url)
        move(url, command.downgrade, "-1")
        status, said = await run_command(environment, "serve")
        assert status != 0
        assert f"this version needs {head_revision()}" in said
        assert "millstream migrate" in said
        assert tables_in(url), "a server migrates no Postgres by itself"


async def test_a_server_on_an_older_sqlite_file_migrates_it(database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("on Postgres it refuses")
    await fill(database_url)
    before = contents(database_url)
    move(database_url, command.downgrade, "-1")
    async with running(database_url, Saver) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/sessions/s/state")).json() == {"number": 2}
    assert_kept({"runs": before["runs"]}, contents(database_url))


async def test_a_database_of_a_later_version_is_refused_without_a_traceback(database_url: str) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    environment = {"MILLSTREAM_DATABASE_URL": database_url, "MILLSTREAM_PORT": "0"}
    for command_name in ("serve", "migrate"):
        status, said = await run_command(environment, command_name)
        assert status != 0
        assert "9999" in said
        assert "Traceback" not in said, said
