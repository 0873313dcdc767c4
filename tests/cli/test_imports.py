import json
from pathlib import Path

from tests.cli.conftest import Cli
from tests.imports.seed_tables import TABLE, session, write

VERSION = "agno 1.1.17"


def test_a_file_of_the_seeds_is_taken_over(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "seed.db", VERSION, [session(VERSION)])
    own = Cli(tmp_path, {"MILLSTREAM_PORT": "0"})
    done = own("import-agno", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"1 session and 2 runs taken over from {TABLE}\n"
    again = own("import-agno", str(file), f"--table={TABLE}")
    assert "1 session left as they are" in again.stdout
    with own.serving():
        assert "blog_posts" in own.json("sessions", "state", "one")
        runs = [json.loads(line) for line in own("runs", "list", "--session-id=one", "--json").stdout.splitlines()]
        assert len(runs) == 2
        held = own("import-agno", str(file))
        assert held.returncode == 2
        assert "another process has " in held.stderr


def test_a_file_that_is_none_is_named(cli: Cli, tmp_path: Path) -> None:
    assert cli("import-agno", str(tmp_path / "nowhere.db")).returncode == 2
    (tmp_path / "text.db").write_text("hello")
    done = cli("import-agno", str(tmp_path / "text.db"))
    assert done.returncode == 2
    assert done.stderr.startswith("millstream: ")
    assert "Traceback" not in done.stderr
    file = write(tmp_path / "seed.db", VERSION, [session(VERSION)])
    missing = cli("import-agno", str(file), "--table=other")
    assert missing.returncode == 2
    assert "other" in missing.stderr
