"""The audit passes when everything was looked up and nothing found, and never otherwise."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from scripts import audit
from scripts.locked import Locked, packages_of

LOCK = """\
# what is asked about
bakery==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
oven==2.1 ; python_version >= "3.8" \\
    --hash=sha256:{b}
elsewhere==1.0 ; sys_platform == "nowhere" \\
    --hash=sha256:{a}
""".format(a="a" * 64, b="b" * 64)
ADVISORY = {
    "vulns": [
        {
            "id": "PYSEC-2026-1",
            "summary": "It burns.",
            "affected": [
                {
                    "package": {"name": "oven", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.2"}]}],
                }
            ],
        }
    ]
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.lock"
    file.write_text(LOCK)
    return file


@contextmanager
def advisories(known: dict[str, Any], status: int = 200) -> Iterator[list[str]]:
    """The options that send pip-audit to a service of ours, which answers as OSV's does."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(known.get(asked["package"]["name"], {})).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ["-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/v1/query", "--timeout", "5"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_was_looked_up_and_has_none_passes(lock: Path) -> None:
    with advisories({}) as options:
        assert audit.audit(lock, *options) == audit.Verdict([], 2)


def test_a_known_advisory_fails(lock: Path) -> None:
    with advisories({"oven": ADVISORY}) as options:
        verdict = audit.audit(lock, *options)
    assert verdict.wrong == ["oven 2.1 has a known advisory, PYSEC-2026-1; fixed in 2.2"]


@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_service_that_refuses_fails(lock: Path, status: int) -> None:
    with advisories({}, status) as options:
        verdict = audit.audit(lock, *options)
    assert verdict.looked_up == 0
    assert "so nothing is known about any package" in verdict.wrong[0]


def test_a_service_that_is_not_there_fails(lock: Path) -> None:
    options = ["-s", "osv", "--osv-url", "http://127.0.0.1:9/", "--timeout", "2"]
    verdict = audit.audit(lock, *options)
    assert "could not be looked up, so nothing is known" in verdict.wrong[0]


def test_a_lock_that_cannot_be_read_fails(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("bakery>=1.0\n")
    with advisories({}) as options:
        assert audit.audit(tmp_path / "lock", *options).wrong


SKIPPED = {
    "dependencies": [
        {"name": "bakery", "version": "1.0", "vulns": []},
        {"name": "oven", "skip_reason": "Dependency not found on PyPI and could not be audited: oven (2.1)"},
    ],
    "fixes": [],
}
"""As pip-audit 2.10 writes it, with exit code 0."""


def test_what_was_skipped_fails(lock: Path) -> None:
    verdict = audit.judge(SKIPPED, packages_of(lock))
    assert verdict.looked_up == 1
    (sentence,) = verdict.wrong
    assert sentence.startswith("1 of 2 packages were not looked up: oven 2.1 (of the first: Dependency not found")


@pytest.mark.parametrize(
    "dependencies",
    [
        [],
        [{"name": "bakery", "version": "1.0", "vulns": []}],
        [{"name": "bakery", "version": "1.0", "vulns": []}, {"name": "oven", "version": "2.0", "vulns": []}],
    ],
    ids=["nothing", "one is missing", "another version"],
)
def test_what_the_report_does_not_name_fails(lock: Path, dependencies: list[dict[str, Any]]) -> None:
    assert "not looked up" in audit.judge({"dependencies": dependencies}, packages_of(lock)).wrong[0]


def test_the_program_says_why_and_fails(
    lock: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "RUNTIME", lock)
    with advisories({}) as options:
        monkeypatch.setattr("sys.argv", ["audit", *options])
        assert audit.main() == 0
        assert "2 packages were looked up, and none has a known advisory" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["audit", "-s", "osv", "--osv-url", "http://127.0.0.1:9/", "--timeout", "2"])
    assert audit.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "could not be looked up" in said.err


def test_a_lock_is_read_as_it_is_written(lock: Path) -> None:
    assert packages_of(lock) == [
        Locked("bakery", "1.0", ("a" * 64, "b" * 64), True),
        Locked("oven", "2.1", ("b" * 64,), True),
        Locked("elsewhere", "1.0", ("a" * 64,), False),
    ]
