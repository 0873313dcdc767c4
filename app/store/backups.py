"""Backups: a consistent copy of a database that is being served, and the way back.

A copy of SQLite's file is made by SQLite, a dump of Postgres by its own programs. Both read one snapshot, so a copy
has every commit from before it was begun, and none in part.
"""

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.errors import ConfigurationError
from app.store.database import check_url, driver_url, sync_url
from app.store.migrations import head_revision, known_revisions

BUSY_SECONDS = 30
_COPIED_REVISION = re.compile(r"^COPY [^\n]*alembic_version[^\n]*\n(\w+)\n", re.MULTILINE)
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)
_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'alembic_version'"


class Copy(NamedTuple):
    """A backup that was made, or was restored from."""

    revision: str
    """The migration that its tables are at."""
    size_bytes: int


def back_up(url: str, target: Path) -> Copy:
    """Copy the database to a file that must not be there yet; the service may go on meanwhile.

    Raises ConfigurationError, and leaves no file, when that is not possible.
    """
    check_url(url)
    if target.exists():
        raise ConfigurationError(f"{target} is there already; name another file, or remove it")
    if not target.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.absolute().parent} to write the backup to")
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        if url.startswith("sqlite:"):
            revision = _copy_sqlite(_file_of(url), part)
        else:
            _run(url, "pg_dump", "--format=custom", f"--file={part}", f"--dbname={_without_password(url)}")
            revision = _dumped_revision(url, part)
        _flush(part)
        part.rename(target)  # under its name, a backup is whole
        _flush(target.absolute().parent)
    finally:
        part.unlink(missing_ok=True)
    return Copy(revision, target.stat().st_size)


def restore(url: str, source: Path, *, replace: bool) -> Copy:
    """Make the database what it was at a backup; nobody may have it open, and it is held by the caller on SQLite.

    Without `replace`, there may be no database yet. Raises ConfigurationError, and changes nothing, when the source is
    no backup that this version can read, or the database is in use.
    """
    check_url(url)
    if not source.is_file():
        raise ConfigurationError(f"there is no backup {source}")
    if url.startswith("sqlite:"):
        revision = _checked_revision(source)
        _restore_sqlite(source, _file_of(url), replace=replace)
    else:
        revision = _known(_dumped_revision(url, source), source)
        _restore_postgres(url, source, revision, replace=replace)
    return Copy(revision, source.stat().st_size)


def _copy_sqlite(file: Path, target: Path) -> str:
    if not file.is_file():
        raise ConfigurationError(f"there is no database {file} to back up; see MILLSTREAM_DATABASE_URL")
    with _refusals(file), closing(_open(file)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    return _checked_revision(target)


def _restore_sqlite(source: Path, file: Path, *, replace: bool) -> None:
    """One rename is all that counts: before it the old file is whole, after it the new one."""
    if file.exists():
        if not replace:
            raise ConfigurationError(f"{file} is there already; --replace takes the backup instead, and keeps it aside")
        _fold(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.restoring")
    try:
        shutil.copyfile(source, new)
        _flush(new)
        if file.exists():
            aside = file.with_name(f"{file.name}.replaced")
            aside.unlink(missing_ok=True)
            aside.hardlink_to(file)
        new.rename(file)
        _flush(file.absolute().parent)
    finally:
        new.unlink(missing_ok=True)


def _fold(file: Path) -> None:
    """Have the file be all of the old database; raises ConfigurationError when somebody else has it open."""
    companions = [file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm")]
    try:
        with closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"somebody has {file} open: {error}; end that first") from None
    except sqlite3.DatabaseError:  # damaged: a reason to restore, and its companions are no better
        for companion in companions:
            with suppress(FileNotFoundError):
                companion.rename(companion.with_name(f"{companion.name}.replaced"))


def _checked_revision(file: Path) -> str:
    """The migration of a file; raises ConfigurationError when it is no database of ours, or a damaged one."""
    with _refusals(file), closing(_open(file)) as connection:
        ((verdict,), *_) = connection.execute("PRAGMA quick_check").fetchall()
        if verdict != "ok":
            raise ConfigurationError(f"{file} is damaged: {verdict}")
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return _known(found[0][0] if found else "", file)


def _known(revision: str, source: Path) -> str:
    if revision not in known_revisions():
        raise ConfigurationError(
            f"{source} is at migration {revision or '(none)'}, which this version does not know (it has"
            f" {head_revision()}); a newer Millstream made it"
        )
    return revision


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigurationError(f"{file} cannot be read as a database of Millstream's: {error}") from None


def _open(file: Path) -> sqlite3.Connection:
    """To read alone: nothing of it is written, no log is folded in."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _restore_postgres(url: str, source: Path, revision: str, *, replace: bool) -> None:
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        others = connection.execute(text(_OTHERS)).scalar_one()
        if others:
            raise ConfigurationError(f"the database is in use, by {others} connections; stop all processes first")
        if connection.execute(text(_TABLES)).scalar_one():
            present = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            _refuse_unless_replaceable(present, revision, replace=replace)
    _run(
        url, "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error",
        f"--dbname={_without_password(url)}", str(source),
    )  # fmt: skip


def _refuse_unless_replaceable(present: str | None, revision: str, *, replace: bool) -> None:
    if not replace:
        raise ConfigurationError("the database has tables already; --replace takes those of the backup instead")
    if present != revision:
        raise ConfigurationError(
            f"the database is at migration {present}, the backup at {revision}: what they do not share would be left"
            " over. Restore into an empty database (createdb), and name that in MILLSTREAM_DATABASE_URL"
        )


def _dumped_revision(url: str, source: Path) -> str:
    said = _run(url, "pg_restore", "--data-only", "--table=alembic_version", "--file=-", str(source))
    found = _COPIED_REVISION.search(said)
    return found[1] if found else ""


def _run(url: str, program: str, *arguments: str) -> str:
    """What a program of Postgres's says; the password goes to it by its environment, which others cannot see."""
    password = make_url(sync_url(url)).password
    environment = os.environ | ({} if password is None else {"PGPASSWORD": str(password)})
    try:
        done = subprocess.run(  # noqa: S603  programs and arguments of ours
            [program, *arguments], capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no {program} here; install the client programs of Postgres, not older than the server"
        ) from None
    if done.returncode:
        raise ConfigurationError(f"{program} has failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _without_password(url: str) -> str:
    return driver_url(make_url(sync_url(url)).set(password=None).render_as_string())


def _file_of(url: str) -> Path:
    return Path(make_url(url).database or "")


def _flush(path: Path) -> None:
    """To the disk: a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
