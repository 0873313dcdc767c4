"""What needs no server: help, the OpenAPI document, migrations, settings that are wrong, servers that are not there."""

import json
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

BOTH = pytest.mark.parametrize("empty_database", ["sqlite", "postgres"], indirect=True)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def test_help_names_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for command in ("serve", "migrate", "openapi", "run", "runs", "sessions", "workflows", "import-agno"):
        assert f" {command} " in done.stdout
    assert "0 completed, 1 failed, 2 usage, 3 cancelled" in cli("run", "--help").stdout
    assert cli("--version").stdout.startswith("millstream ")


def test_openapi_needs_nothing(cli: Cli, tmp_path: Path) -> None:
    done = Cli(tmp_path, cli.settings)("openapi", workflows="nowhere", database_url="postgresql://nobody@127.0.0.1:1/x")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "/workflows/{name}/runs" in document["paths"]
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_migrate_brings_a_database_to_head(cli: Cli, empty_database: str) -> None:
    for _ in range(2):
        done = cli("migrate", database_url=empty_database)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("the database is at migration ")


@pytest.mark.parametrize("empty_database", ["postgres"], indirect=True)
def test_serve_refuses_a_postgres_that_is_not_at_head(cli: Cli, empty_database: str) -> None:
    done = cli("serve", database_url=empty_database)
    assert done.returncode == 2
    assert "has no tables" in done.stderr
    assert "run `millstream migrate`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": "abc"}, "MILLSTREAM_PORT is 'abc': input should be a valid integer"),
        ({"port": "70000"}, "less than or equal to 65535; correct it, or unset it for the default, 8000"),
        ({"log_level": "loud"}, "MILLSTREAM_LOG_LEVEL is 'loud': input should be 'debug', 'info'"),
        ({"database_url": "mysql://ada:secret@host/x"}, "MILLSTREAM_DATABASE_URL is 'host/x'; it starts with"),
        ({"database_url": "rubbish"}, "MILLSTREAM_DATABASE_URL is 'rubbish'; it starts with"),
        ({"database_url": "postgresql://nobody:secret@127.0.0.1:1/x"}, "Connection refused"),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_a_setting_that_is_wrong_is_named(cli: Cli, command: str, settings: dict[str, str], said: str) -> None:
    done = cli(command, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("millstream: ")
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_workflow_module_that_is_not_there_is_named(cli: Cli) -> None:
    done = cli("serve", workflows="nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("millstream: MILLSTREAM_WORKFLOWS names 'nowhere', which cannot be imported")


def test_no_server_is_one_sentence_that_says_how_to_start_one(cli: Cli) -> None:
    port = free_port()
    for words in (["runs", "list"], ["run", "slow", "--follow"], ["runs", "follow", "x"], ["sessions", "state", "x"]):
        done = cli(*words, port=port, url="")
        assert done.returncode == 4
        assert f"no server answers at http://127.0.0.1:{port}: " in done.stderr
        assert "start one with `millstream serve`" in done.stderr
        assert done.stderr.count("\n") == 1
    assert "MILLSTREAM_PORT is 0" in cli("runs", "list", port=0, url="").stderr
    assert f"http://127.0.0.1:{port}" in cli("runs", "list", "--url", f"127.0.0.1:{port}").stderr
