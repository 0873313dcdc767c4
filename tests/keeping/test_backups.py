"""Backups under load: all that was acknowledged before, nothing in part, and a service that goes on from there."""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pytest

from app import RunResponse, Workflow
from app.store.migrations import head_revision, migrate
from tests.keeping.consistency import check_whole, replayed, revisions_of
from tests.support import databases
from tests.support.cluster import cluster, run_command
from tests.support.databases import POSTGRES
from tests.support.processes import server_process
from tests.support.server import Client
from tests.support.tables import execute, query

WRITERS = 6


class Work(Workflow):
    """Says and saves things."""

    async def run(self, count: int = 20) -> AsyncIterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=f"{number} ")
            if number % 5 == 0:
                self.session_state[f"run-{self.run_id}"] = number
                await self.write_to_storage()
            await asyncio.sleep(0.01)
        self.session_state[f"run-{self.run_id}"] = "done"


@dataclass
class Acknowledged:
    """What the service has said is so."""

    runs: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    patches: dict[str, int] = field(default_factory=dict)
    """The number that a session's state has at least."""

    def copy(self) -> "Acknowledged":
        return Acknowledged(list(self.runs), dict(self.ended), dict(self.patches))


async def write(client: Client, session_id: str, told: Acknowledged) -> None:
    """Start runs, wait for some, and patch, for as long as somebody answers."""
    number = 0
    try:
        while True:
            number += 1
            run = await client.start("work", {"session_id": session_id}, count=number % 12)
            told.runs.append(run["run_id"])
            answer = await client.patch(f"/sessions/{session_id}/state", json={"number": number, "more": "x" * 300})
            assert answer.status_code == 200, answer.text
            told.patches[session_id] = number
            if number % 3 == 0:
                ended = await client.ended(run["run_id"])
                told.ended[run["run_id"]] = ended["status"]
    except (httpx.TransportError, AssertionError, KeyError):  # the service is gone
        return


async def command(database_url: str, *arguments: str) -> tuple[int, str]:
    return await run_command({"MILLSTREAM_DATABASE_URL": database_url}, *arguments)


@contextmanager
def another_database(database_url: str, folder: Path) -> Iterator[str]:
    """One without tables, to restore to."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{folder}/elsewhere/restored.db"
    else:
        with databases.copy_of_postgres(None) as url:
            yield url


@pytest.mark.slow
async def test_a_backup_under_load_has_all_that_was_acknowledged(database_url: str, tmp_path: Path) -> None:
    backups: list[tuple[Path, Acknowledged]] = []
    told = Acknowledged()
    async with cluster(database_url, Work, servers=1, workers=1) as members, members.client() as client:
        writing = [asyncio.create_task(write(client, f"s{number}", told)) for number in range(WRITERS)]
        for number in range(3):
            await asyncio.sleep(1)
            before = told.copy()
            target = tmp_path / f"backup-{number}"
            code, said = await command(database_url, "backup", str(target))
            assert code == 0, said
            assert f"at migration {head_revision()}" in said
            backups.append((target, before))
        for member in members.members:
            member.kill()
        await asyncio.wait_for(asyncio.gather(*writing), 30)
    assert len(told.ended) > 3
    for target, before in backups:
        with another_database(database_url, tmp_path / f"of-{target.stem}") as url:
            code, said = await command(url, "restore", str(target))
            assert code == 0, said
            check_whole(url)
            check_all_is_there(url, before)
            await check_it_goes_on(url, before)


def check_all_is_there(url: str, before: Acknowledged) -> None:
    runs = {row["run_id"]: row["status"] for row in query(url, "SELECT run_id, status FROM runs")}
    assert set(before.runs) <= set(runs)
    assert {run_id: runs[run_id] for run_id in before.ended} == before.ended
    for session_id, number in before.patches.items():
        assert replayed(revisions_of(url, session_id))["number"] >= number


async def check_it_goes_on(url: str, before: Acknowledged) -> None:
    async with server_process(url, Work, lease_seconds=1) as server:
        for run_id in [row["run_id"] for row in query(url, "SELECT run_id FROM runs")]:
            assert (await server.client.ended(run_id, seconds=60))["status"] == "completed"
        again = await server.client.finish("work", {"session_id": "s0"}, count=3)
        state = (await server.client.get("/sessions/s0/state")).json()
        assert state[f"run-{again['run_id']}"] == "done"
        assert all(state.get(f"run-{run_id}", "done") == "done" for run_id in before.runs)
    check_whole(url)


async def test_a_database_in_use_is_not_restored_over(database_url: str, tmp_path: Path) -> None:
    async with server_process(database_url, Work) as server:
        await server.client.finish("work", count=2)
        assert (await command(database_url, "backup", str(tmp_path / "backup")))[0] == 0
        later = await server.client.finish("work", count=2)
        code, said = await command(database_url, "restore", "--replace", str(tmp_path / "backup"))
        assert code == 2
        assert "another process has" in said or "in use, by" in said
        assert (await server.client.get(f"/runs/{later['run_id']}")).json()["status"] == "completed"
    assert len(query(database_url, "SELECT * FROM runs")) == 2


async def test_a_restore_takes_the_place_only_when_told_to(database_url: str, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    async with server_process(database_url, Work) as server:
        first = await server.client.finish("work", count=2)
        assert (await command(database_url, "backup", backup))[0] == 0
        await server.client.finish("work", count=2)
    code, said = await command(database_url, "restore", backup)
    assert (code, "--replace" in said) == (2, True)
    assert len(query(database_url, "SELECT * FROM runs")) == 2
    code, said = await command(database_url, "restore", "--replace", backup)
    assert code == 0, said
    assert [row["run_id"] for row in query(database_url, "SELECT * FROM runs")] == [first["run_id"]]
    check_whole(database_url)
    if database_url.startswith("sqlite"):
        aside = Path(database_url.removeprefix("sqlite:///") + ".replaced")
        assert len(query(f"sqlite:///{aside}", "SELECT * FROM runs")) == 2, "what was there is kept aside"


def no_backups(folder: Path) -> tuple[Path, Path]:
    text, other = folder / "text", folder / "other"
    text.write_text("no backup at all" * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.close()
    return text, other


async def test_what_is_no_backup_is_not_restored(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "INSERT INTO workers VALUES ('w', 'h', 1, '2026-01-01', '2026-01-01')")
    for source in (*no_backups(tmp_path), tmp_path / "nothing"):
        code, said = await command(database_url, "restore", "--replace", str(source))
        assert code == 2, said
        assert "Traceback" not in said
    assert len(query(database_url, "SELECT * FROM workers")) == 1, "nothing has changed"


async def test_a_damaged_copy_is_not_restored(sqlite_url: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert (await command(sqlite_url, "backup", str(backup)))[0] == 0
    whole = backup.read_bytes()
    backup.write_bytes(whole[:8192] + os.urandom(8192) + whole[16384:])
    code, said = await command(f"sqlite:///{tmp_path}/new.db", "restore", str(backup))
    assert code == 2, said
    assert "damaged" in said or "cannot be read" in said
    assert not (tmp_path / "new.db").exists()


async def test_a_backup_of_a_newer_version_is_refused(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    backup = tmp_path / "backup"
    code, said = await command(database_url, "backup", str(backup))
    if code == 0:
        with another_database(database_url, tmp_path) as url:
            code, said = await command(url, "restore", str(backup))
    assert (code, "a newer Millstream made it" in said) == (2, True), said


async def test_an_older_backup_is_migrated_by_the_start(tmp_path: Path) -> None:
    old = f"sqlite:///{tmp_path}/old.db"
    migrate(old, "0004")
    backup = str(tmp_path / "backup")
    assert (await command(old, "backup", backup))[0] == 0
    new = f"sqlite:///{tmp_path}/new.db"
    assert (await command(new, "restore", backup))[0] == 0
    async with server_process(new, Work) as server:
        assert (await server.client.finish("work", count=1))["status"] == "completed"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_backup_overwrites_nothing(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    for target in (tmp_path / "there", tmp_path / "no" / "folder" / "file"):
        code, said = await command(database_url, "backup", str(target))
        assert code == 2, said
    assert (tmp_path / "there").read_text() == "mine"
    assert names_in(tmp_path) & {"there.part", "file.part"} == set()


async def test_a_backup_has_nothing_of_what_was_deleted(sqlite_url: str, tmp_path: Path) -> None:
    async with server_process(sqlite_url, Work) as server:
        body = {"workflow": "work", "session_id": "s", "session_state": {"secret": "correct-horse-battery"}}
        assert (await server.client.post("/sessions", json=body)).status_code == 201
        assert (await server.client.delete("/sessions/s")).status_code == 204
        assert (await command(sqlite_url, "backup", str(tmp_path / "backup")))[0] == 0
    assert b"correct-horse" not in (tmp_path / "backup").read_bytes()


async def test_without_the_programs_of_postgres_it_is_said_what_is_missing(tmp_path: Path) -> None:
    databases.skip_without_postgres()
    with databases.copy_of_postgres(None) as url:
        code, said = await run_command(
            {"MILLSTREAM_DATABASE_URL": url, "PATH": str(tmp_path)}, "backup", str(tmp_path / "backup")
        )
    assert (code, "install the client programs of Postgres" in said) == (2, True)
    assert names_in(tmp_path) == set()


async def test_a_password_is_not_told(postgres_template: str, tmp_path: Path) -> None:
    """By its command line, everybody on the machine can see what a program was given."""
    password = "correct horse&battery"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS millstream_backup")
        connection.execute(f"CREATE ROLE millstream_backup SUPERUSER LOGIN PASSWORD '{password}'")
    seen = tmp_path / "seen"
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in ("pg_dump", "pg_restore"):
        script = programs / program
        script.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nexec /usr/bin/{program} "$@"\n')
        script.chmod(0o755)
    try:
        with databases.copy_of_postgres(postgres_template) as url:
            named = url.replace("postgres@", f"millstream_backup:{quote(password)}@", 1)
            environment = {"MILLSTREAM_DATABASE_URL": named, "PATH": f"{programs}:{os.environ['PATH']}"}
            code, said = await run_command(environment, "backup", str(tmp_path / "backup"))
        assert code == 0, said
        assert "horse" not in seen.read_text() + said
        assert "millstream_backup" in seen.read_text()
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute("DROP ROLE IF EXISTS millstream_backup")


def test_rows_of_a_state_are_replayed() -> None:
    rows = [{"patch": json.dumps([{"op": "add", "path": "/a", "value": 1}]), "snapshot": '{"a":1}'}]
    assert replayed(rows) == {"a": 1}
