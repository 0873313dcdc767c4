"""What the Dockerfile says, as far as it can be tried without an engine: its sources, its steps, its health check."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINES = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
SOURCES = [
    source
    for line in LINES
    if line.startswith("COPY ") and "--from" not in line
    for source in line.removeprefix("COPY ").split()[:-1]
]


def instruction(name: str) -> str:
    """The last instruction of that name."""
    return next(line for line in reversed(LINES) if line.lstrip().startswith(name)).removeprefix(name).strip()


def built(folder: Path) -> Path:
    """The wheel that the builder makes of what is copied, and of nothing else."""
    for source in SOURCES:
        target = folder / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    (command,) = re.findall(r"/opt/build/bin/python (-m pip wheel .*?) && ", " && ".join(LINES))
    subprocess.run([sys.executable, *shlex.split(command), "--quiet"], cwd=folder, check=True, timeout=100)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def healthy(check: list[str], environment: dict[str, str]) -> int:
    """The exit code of the health check."""
    return subprocess.run(check, env=environment, capture_output=True, check=False, timeout=10).returncode


def test_every_source_exists_and_is_let_through() -> None:
    assert "requirements.lock" in SOURCES
    let_through = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    for source in SOURCES:
        assert (ROOT / source).exists(), source
        assert source in let_through, source


def test_everything_that_is_installed_has_a_hash() -> None:
    installs = re.findall(r"pip install ([^&]*)", " && ".join(LINES))
    assert len(installs) == 3
    for options in installs:
        assert "--no-deps" in options
        assert "--require-hashes" in options or "--no-index" in options


def test_what_builds_the_project_is_found_in_the_lock() -> None:
    (program,) = re.findall(r"awk '(.*?)'", DOCKERFILE)
    done = subprocess.run(
        ["awk", program, ROOT / "requirements-dev.lock"], capture_output=True, text=True, check=True, timeout=10
    )
    names = re.findall(r"^([a-z-]+)==", done.stdout, re.MULTILINE)
    assert names == ["hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"]
    assert done.stdout.count("--hash=sha256:") >= len(names)


def test_the_process_is_not_root_and_gets_the_signals() -> None:
    assert instruction("USER") == "millstream"
    assert json.loads(instruction("ENTRYPOINT")) == ["millstream"]
    assert json.loads(instruction("CMD")) == ["serve"]
    assert instruction("STOPSIGNAL") == "SIGTERM"


@pytest.mark.slow
def test_the_installed_package_brings_its_migrations_and_serves(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    wheel = built(source)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert "app/alembic/env.py" in names
    assert "app/documentation/README.md" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")} | {
        "PYTHONPATH": str(installed),
        "MILLSTREAM_DATABASE_URL": f"sqlite:///{tmp_path / 'data' / 'millstream.db'}",
        "MILLSTREAM_PORT": str(port),
    }
    check = json.loads(instruction("HEALTHCHECK").partition("CMD")[2])
    check[0] = sys.executable
    server = subprocess.Popen(
        [sys.executable, "-c", "from app.cli import main; main()", "serve"], cwd=tmp_path, env=environment
    )
    try:
        codes = [healthy(check, environment)]
        while codes[-1] and len(codes) < 100:
            assert server.poll() is None
            codes.append(healthy(check, environment))
        assert codes[-1] == 0
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()
    assert healthy(check, environment) == 1


READ_ONLY = """
set -e
mount --make-rprivate /
mount --rbind / {root}
mount -o remount,bind,ro {root}
mount -t tmpfs tmpfs {root}/tmp
for folder in {data} {project}; do
    mkdir -p {root}$folder
    mount --rbind $folder {root}$folder
done
mount -o remount,bind,ro {root}{project}
exec "$@"
"""
"""A root that cannot be written, with a /tmp and the data as the composition has them, in a namespace of its own."""


@pytest.mark.slow
def test_a_root_that_cannot_be_written_is_enough(tmp_path: Path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    root.mkdir()
    data.mkdir()
    mounts = READ_ONLY.format(root=root, data=data, project=ROOT)
    confined = ["unshare", "--mount", "--", "sh", "-c", mounts, "sh", "chroot", str(root)]
    if os.geteuid() != 0 or subprocess.run([*confined, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NO NAMESPACES: a read-only root goes untested")
    refused = subprocess.run([*confined, "touch", "/usr/a", str(ROOT / "a"), "/a"], capture_output=True, check=False)
    assert refused.stderr.count(b"Read-only") == 3
    code = "from app.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")} | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(data),
        "MILLSTREAM_DATABASE_URL": f"sqlite:///{data}/millstream.db",
    }
    command = [*confined, sys.executable, "-c", code, "serve", "--port", "0"]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        (url,) = re.findall(r"at (http://\S+), documented", said) or [said]
        run = urllib.request.Request(
            f"{url}/workflows/hello/runs",
            data=b'{"input": {"name": "Ada"}}',
            headers={"Content-Type": "application/json", "Prefer": "wait=10"},
        )
        with urllib.request.urlopen(run, timeout=20) as answer:
            assert json.load(answer)["status"] == "completed"
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()
