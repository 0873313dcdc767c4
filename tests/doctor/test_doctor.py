"""A deployment is broken on purpose, and the doctor says so."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from app import Workflow
from app.store.inspection import inspect_postgres, inspect_sqlite
from tests.support.cluster import ROOT, cluster, free_port
from tests.support.server import running
from tests.support.tables import execute, query

ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
Findings = dict[str, dict[str, Any]]


class Echo(Workflow):
    def run(self) -> None:
        pass


class Slow(Workflow):
    async def run(self) -> None:
        await asyncio.sleep(60)


async def doctor(folder: Path, *words: str, **settings: Any) -> tuple[int, Findings]:
    """The exit code, and what was found, by check."""
    code, said = await call(folder, "--json", *words, **settings)
    return code, {finding["check"]: finding for finding in map(json.loads, said.splitlines())}


async def call(folder: Path, *words: str, **settings: Any) -> tuple[int, str]:
    """The exit code, and what was printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
    chosen = {
        "shipped_workflows": "false",
        "workflows": "tests.doctor.test_doctor:Echo",
        "port": free_port(),
    } | settings
    environment |= {f"MILLSTREAM_{name.upper()}": str(value) for name, value in chosen.items()}
    environment["PYTHONPATH"] = str(ROOT)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", "from app.cli import main; main()", "doctor", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def names(folder: Path) -> list[str]:
    """The files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def wrong(findings: Findings) -> set[str]:
    """The checks that found something wrong."""
    return {check for check, finding in findings.items() if finding["verdict"] == "wrong"}


async def test_a_deployment_that_is_well(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, Echo, ping_seconds=0.3) as client:
        await client.finish("echo")
        code, found = await doctor(tmp_path, "--url", str(client.base_url), database_url=database_url)
        assert (code, wrong(found)) == (0, set()), found
        assert found["workers"]["detail"].startswith("1 alive")
        assert found["stream"]["verdict"] == found["service"]["verdict"] == "ok"
        assert found["readiness"]["verdict"] == found["migrations"]["verdict"] == "ok"
        assert (await client.get("/sessions")).json()["items"][0]["name"] is None, "the session of the trial is left"
        code, said = await call(tmp_path, database_url=database_url, url=client.base_url)
        assert code == 0
        assert "✓ migrations: at " in said


async def test_a_setting_that_is_misspelt(tmp_path: Path) -> None:
    code, found = await doctor(tmp_path, database_ulr="sqlite:///x.db")
    assert (code, wrong(found)) == (1, {"settings"})
    assert "MILLSTREAM_DATABASE_ULR (MILLSTREAM_DATABASE_URL is meant?)" in found["settings"]["detail"]
    assert names(tmp_path) == [], "looking leaves nothing behind"


async def test_a_setting_that_is_wrong(tmp_path: Path) -> None:
    code, found = await doctor(tmp_path, lease_seconds="soon")
    assert (code, set(found)) == (1, {"settings"})
    assert "MILLSTREAM_LEASE_SECONDS is 'soon'" in found["settings"]["detail"]
    code, found = await doctor(tmp_path, database_url="mysql://ada:secret@host/x")
    assert (code, set(found)) == (1, {"settings"})
    assert "secret" not in str(found)


async def test_workflows_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    code, found = await doctor(tmp_path, workflows="broken")
    assert (code, wrong(found)) == (1, {"workflows"})
    assert "broken" in found["workflows"]["detail"]


async def test_a_database_that_is_away(tmp_path: Path) -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/x"
    code, found = await doctor(tmp_path, database_url=url)
    assert (code, wrong(found)) == (1, {"database"})
    assert "refused" in found["database"]["detail"]
    assert "secret" not in str(found)
    (tmp_path / "no.db").write_bytes(b"no database at all" * 1000)
    code, found = await doctor(tmp_path, database_url="sqlite:///no.db")
    assert "database" in wrong(found), found


async def test_tables_of_another_version(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '0001'")
    code, found = await doctor(tmp_path, database_url=database_url)
    if database_url.startswith("sqlite"):
        assert code == 0
        assert "`millstream serve` will bring it to" in found["migrations"]["detail"]
    else:
        assert (code, wrong(found)) == (1, {"migrations"})
        assert found["migrations"]["remedy"] == "run `millstream migrate`"
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    assert "migrations" in wrong((await doctor(tmp_path, database_url=database_url))[1])
    execute(database_url, "DROP TABLE alembic_version")
    _, found = await doctor(tmp_path, database_url=database_url)
    assert "there are no tables" in found["migrations"]["detail"]


@pytest.mark.slow
async def test_a_process_that_died_with_its_run(database_url: str, tmp_path: Path) -> None:
    async with cluster(database_url, Slow, servers=1, workers=0, lease_seconds=1) as members:
        async with members.client() as client:
            run = await client.start("slow")
        members.servers[0].kill()
        await asyncio.sleep(3.2)
        code, found = await doctor(tmp_path, database_url=database_url, lease_seconds=1)
        assert (code, wrong(found)) == (1, {"workers", "left runs"}), (run, found)
        assert found["workers"]["detail"] == "none is alive, and 1 runs are to be executed"
        assert "1 runs belong to a process" in found["left runs"]["detail"]


async def test_a_run_that_nobody_takes(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, Slow, max_live_runs=1, lease_seconds=30) as client:
        await client.start("slow")
        stuck = await client.start("slow")
        long_ago = (
            "datetime('now', '-5 minutes')" if database_url.startswith("sqlite") else "now() - interval '5 minutes'"
        )
        execute(database_url, f"UPDATE runs SET created_at = {long_ago} WHERE run_id = :run", run=stuck["run_id"])
        code, found = await doctor(tmp_path, database_url=database_url, lease_seconds=30)
        assert (code, wrong(found)) == (1, {"stuck runs"}), found


async def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    code, found = await doctor(tmp_path)
    assert (code, found["service"]["verdict"]) == (0, "warning")
    code, found = await doctor(tmp_path, "--url", f"http://127.0.0.1:{free_port()}")
    assert (code, wrong(found)) == (1, {"service"})


async def test_a_service_with_other_settings_or_of_another_version(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(sqlite_url, Echo, lease_seconds=7) as client:
        _, found = await doctor(tmp_path, database_url=sqlite_url, url=client.base_url)
        assert "with a lease of 7 s, not what is set here" in found["service"]["detail"]
        monkeypatch.setattr("app.operations.health.__version__", "0.0.9")
        _, found = await doctor(tmp_path, database_url=sqlite_url, url=client.base_url)
        assert "is version 0.0.9, and this is" in found["service"]["detail"]


@ON_POSTGRES
async def test_a_service_that_is_not_ready(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, Echo) as client:
        execute(database_url, "UPDATE alembic_version SET version_num = '0001'")
        code, found = await doctor(tmp_path, database_url=database_url, url=client.base_url)
        assert (code, wrong(found)) == (1, {"migrations", "readiness"})
        assert "run millstream migrate" in found["readiness"]["detail"]


@contextmanager
def gathering_proxy(target: str) -> Iterator[str]:
    """A proxy that sends nothing on before it has all of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        do_POST = do_DELETE = do_GET

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            kept = {name: value for name, value in self.headers.items() if name.lower() in {"content-type", "accept"}}
            request = urllib.request.Request(target + self.path, body, kept, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    status, kind, whole = answer.status, answer.headers["Content-Type"], answer.read()
            except (TimeoutError, urllib.error.URLError):
                return
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
async def test_a_proxy_that_gathers_streams(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, Echo, ping_seconds=0.3) as client:
        with gathering_proxy(str(client.base_url).rstrip("/")) as url:
            code, found = await doctor(tmp_path, "--url", url, database_url=sqlite_url)
        assert (code, wrong(found)) == (1, {"stream"}), found
        assert "proxy_buffering off" in found["stream"]["remedy"]


async def test_a_model_that_is_not_there_or_refuses(tmp_path: Path) -> None:
    code, found = await doctor(tmp_path, model_base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert (code, wrong(found)) == (1, {"model"})

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == "Bearer right" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    code, found = await doctor(tmp_path, model_base_url=url, model_api_key="mistaken-key")
    assert (code, wrong(found)) == (1, {"model"})
    assert "refuses the key" in found["model"]["detail"]
    assert "mistaken-key" not in str(found)
    code, found = await doctor(tmp_path, model_base_url=url, model_api_key="right")
    assert (code, found["model"]["verdict"]) == (0, "ok")
    server.shutdown()
    server.server_close()


async def test_a_model_that_nobody_knows(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    code, found = await doctor(tmp_path, model_base_url="nonsense")
    assert (code, wrong(found)) == (1, {"model"})


@ON_POSTGRES
async def test_a_server_that_may_lose_what_it_answered(database_url: str, tmp_path: Path) -> None:
    name = make_url(database_url).database
    execute(database_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    code, found = await doctor(tmp_path, database_url=database_url)
    assert (code, found["durability"]["verdict"]) == (0, "warning")
    assert "synchronous_commit is off" in found["durability"]["detail"]


@ON_POSTGRES
@pytest.mark.parametrize(("mode", "comes"), [("transaction", False), ("session", True)])
async def test_a_pooler(database_url: str, tmp_path: Path, mode: str, comes: bool) -> None:
    with pooler(database_url, tmp_path, mode) as url:
        code, found = await doctor(tmp_path, database_url=url)
    assert "through a pooler" in found["notifications"]["detail"]
    assert (code, found["notifications"]["verdict"]) == ((0, "ok") if comes else (1, "wrong")), found
    if not comes:
        assert "session pooling" in found["notifications"]["remedy"]


@contextmanager
def pooler(database_url: str, folder: Path, mode: str) -> Iterator[str]:
    """The database by a PgBouncer; skips, loudly, where there is none."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("NO PGBOUNCER: install it (apt-get install pgbouncer); what a pooler breaks goes untried")
    url, port = make_url(database_url), free_port()
    (folder / "users.txt").write_text(f'"{url.username}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={url.host} port={url.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {folder}/users.txt\n"
        f"pool_mode = {mode}\n"
        f"[databases]\n{url.database} = host={url.host} port={url.port} dbname={url.database} user={url.username}\n"
    )
    command = [program, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it does not run as root
        folder.chmod(0o755)
        for parent in list(folder.parents)[:3]:
            parent.chmod(0o755)
        command = [program, "--user=postgres", str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for_port(port, process)
        yield url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Until somebody listens."""
    for _ in range(200):
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nobody listens")


async def test_looking_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """Also while the service runs: nothing is written, and no lock is taken that its next start would miss."""
    before = names(tmp_path)
    if database_url.startswith("sqlite"):
        assert inspect_sqlite(database_url).journal_mode == "wal"
    else:
        assert inspect_postgres(database_url, lease_seconds=10).hears
    assert names(tmp_path) == before
    assert query(database_url, "SELECT * FROM workers") == []
