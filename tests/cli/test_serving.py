import json
import re
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.conftest import MILLSTREAM, Cli, Terminal


@pytest.fixture
def own(cli: Cli, tmp_path: Path) -> Cli:
    """The command in a folder of its own: what is done to its server is nobody else's business."""
    (tmp_path / "flows.py").write_text((cli.folder / "flows.py").read_text())
    return Cli(tmp_path, {name: value for name, value in cli.settings.items() if name != "MILLSTREAM_URL"})


def test_the_start_line_has_the_real_address(own: Cli) -> None:
    with own.serving(port=0) as server:
        assert urlsplit(server.url).port
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert httpx.get(f"{server.url}/docs").status_code == 200
        assert server.log.read_text().count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_open_streams_cleanly_and_the_process_with_0(own: Cli, number: signal.Signals) -> None:
    with own.serving() as server:
        run = own.json("run", "slow", "--count=1000", "--json")
        with httpx.stream("GET", f"{server.url}/runs/{run['run_id']}/events", timeout=10) as stream:
            chunks = stream.iter_bytes()
            first = next(chunks)
            began = time.monotonic()
            server.process.send_signal(number)
            text = first + b"".join(chunks)  # a cut connection would raise here
        assert text.endswith(b"\n\n")
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in server.log.read_text()


def test_a_second_signal_does_not_wait_for_runs(own: Cli) -> None:
    with own.serving(drain_seconds=60) as server:
        own.json("run", "slow", "--count=100000", "--json")
        server.process.send_signal(signal.SIGINT)
        server.wait_for(re.compile("stopping"))
        began = time.monotonic()
        assert server.end(signal.SIGINT) == 1
        assert time.monotonic() - began < 10
        assert "Traceback" not in server.log.read_text()


def test_a_signal_during_the_start_is_obeyed(own: Cli) -> None:
    terminal = Terminal(MILLSTREAM, "serve", folder=own.folder, environment=own.environment())
    time.sleep(0.5)
    begun = time.monotonic()
    while not list(own.folder.glob("*.lock")) and time.monotonic() < begun + 20:  # a slow machine still starts Python
        time.sleep(0.01)
    terminal.interrupt()
    assert terminal.exit_code() in {0, 130}  # 130 while Python itself was still starting
    assert "Traceback" not in terminal.shown.replace("KeyboardInterrupt", "")


def test_a_follower_comes_back_when_the_server_does(own: Cli) -> None:
    with own.serving() as server:
        port = urlsplit(server.url).port
        run = own.json("run", "slow", "--count=40", "--seconds=0.1", "--json")
        terminal = Terminal(
            MILLSTREAM, "runs", "follow", run["run_id"], "--json", folder=own.folder, environment=own.environment()
        )
        terminal.wait_for('"done":5')
        assert server.end() == 0
    terminal.wait_for("connecting again")
    with own.serving(port=port):
        code = terminal.exit_code(60)
    events = [json.loads(line) for line in terminal.shown.splitlines() if line.startswith("{")]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["event"] == "RunFinished"
    assert code == {"completed": 0, "failed": 1}[events[-1]["status"]]


def test_an_address_that_is_taken_and_a_file_that_is_held_are_named(own: Cli) -> None:
    with own.serving() as server:
        taken = own("serve", port=urlsplit(server.url).port)
        assert taken.returncode == 2
        assert "Address already in use; choose another with --port" in taken.stderr
        held = own("serve", port=0)
        assert held.returncode == 2
        assert "another process has " in held.stderr
        assert held.stderr.count("\n") == 1


def test_one_ctrl_c_leaves_the_run_alone(own: Cli) -> None:
    with own.serving():
        words = ["run", "slow", "--count=1000", "--follow", "--session-id=left"]
        terminal = Terminal(MILLSTREAM, *words, folder=own.folder, environment=own.environment())
        terminal.wait_for("word3")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        (run,) = [json.loads(line) for line in own("runs", "list", "--json").stdout.splitlines()]
        assert run["status"] == "running"
        assert f"come back with `millstream runs follow {run['run_id']}`" in " ".join(terminal.shown.split())


def test_a_second_ctrl_c_cancels_the_run(own: Cli) -> None:
    with own.serving():
        words = ["run", "slow", "--count=1000", "--follow"]
        terminal = Terminal(MILLSTREAM, *words, folder=own.folder, environment=own.environment())
        terminal.wait_for("word3")
        terminal.interrupt()
        terminal.wait_for("detached")
        terminal.interrupt()
        terminal.wait_for("■ cancelled in")
        assert terminal.exit_code() == 3
        assert json.loads(own("runs", "list", "--json").stdout)["status"] == "cancelled"


def test_a_terminal_sees_the_text_the_bar_and_the_time(own: Cli) -> None:
    with own.serving():
        words = ["run", "slow", "--count=4", "--seconds=0.3", "--follow"]
        terminal = Terminal(MILLSTREAM, *words, folder=own.folder, environment=own.environment())
        assert terminal.exit_code() == 0
        for part in ("▶ slow", "word3", "━━━", "2/4", "✓ completed in 1.", "revision 1"):
            assert part in terminal.shown


def test_logs_name_what_failed_and_tell_no_content(own: Cli) -> None:
    with own.serving() as server:
        own("run", "fails", "--follow")
        own("run", "everything", "--text=private", "--follow")
        log = server.log.read_text()
    assert "run_failed run_id=" in log
    assert "ValueError: kaput" in log
    assert "private" not in log
