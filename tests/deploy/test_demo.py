"""`make demo`, with the model of the tests in place of the local one."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Terminal
from tests.support.processes import ROOT

VENV = Path(sys.executable).parent.parent
MAKE = ["make", f"VENV={VENV}", f"--old-file={VENV}/.ready", "demo"]  # everything is installed already
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
    return kept | {"MILLSTREAM_MODEL": "test"} | settings


@pytest.mark.slow
def test_it_shows_a_post_its_copy_the_state_and_the_history_and_ends() -> None:
    done = subprocess.run(DEMO, env=environment(ONCE="1"), capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("search", "scrape", "writer"):
        assert f"✓ step {step}, " in done.stderr
    second = done.stderr.rpartition("▶")[2]
    assert second.splitlines()[1] == "· WorkflowCompleted"
    assert "step" not in second
    assert '"blog_posts": [' in done.stdout
    assert re.search(r"^3 +\S+ \S+ +run \S+ +/blog_posts", done.stdout, re.MULTILINE)
    assert "/docs" in done.stdout


@pytest.mark.slow
def test_ctrl_c_ends_it_and_its_service_with_0_and_a_taken_port_is_not_used() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        terminal = Terminal(*MAKE, folder=ROOT, environment=environment())
        terminal.wait_for("Ctrl-C ends it.", 90)
    (url,) = set(re.findall(r"serves at (http://\S+)", terminal.shown))
    assert "port 8000 is taken, so this uses port " in terminal.shown
    assert httpx.get(f"{url}/readyz").status_code == 200
    terminal.interrupt()
    assert terminal.exit_code() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")


@pytest.mark.slow
def test_a_service_that_does_not_start_is_said_with_its_reason() -> None:
    done = subprocess.run(
        DEMO, env=environment(MILLSTREAM_LOG_LEVEL="loud"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "demo: the service did not start (exit code 2)" in done.stdout
    assert "MILLSTREAM_LOG_LEVEL is 'loud'" in done.stdout
