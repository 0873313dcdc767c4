"""The commands about keys, on a database that nobody has and through the service that has it."""

import json
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app import clock
from app.cli.keys import read_end, read_span
from app.errors import Invalid
from tests.cli.conftest import Cli

KEY = re.compile(r"ms_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}\n")


@pytest.fixture
def own(cli: Cli, tmp_path: Path) -> Cli:
    """The command in a folder of its own."""
    (tmp_path / "flows.py").write_text((cli.folder / "flows.py").read_text())
    return Cli(tmp_path, {name: value for name, value in cli.settings.items() if name != "MILLSTREAM_URL"})


def test_keys_are_made_before_there_is_a_service_and_through_it(own: Cli) -> None:  # noqa: PLR0915  one story
    scopes = [f"--scope={scope}" for scope in ("admin", "runs:read,runs:write")]
    first = own("keys", "create", "--name=first", *scopes)
    assert first.returncode == 0, first.stderr
    assert KEY.fullmatch(first.stdout)
    assert "it is shown this once" in first.stderr
    with own.serving() as server:
        refused = own("keys", "list")
        assert refused.returncode == 4
        assert "MILLSTREAM_API_KEY" in refused.stderr
        assert own("workflows", "list").returncode == 4
        own.settings["MILLSTREAM_API_KEY"] = first.stdout.strip()
        assert own("workflows", "list").returncode == 0
        assert own("run", "slow", "--follow").returncode == 0
        made = own.json(
            "keys",
            "create",
            "--name=web",
            "--scope=runs:read",
            "--tenant=acme",
            "--user=ada",
            "--expires=30d",
            "--json",
        )
        assert (made["tenant"], made["user_id"], made["scopes"]) == ("acme", "ada", ["runs:read"])
        answer = httpx.get(f"{server.url}/runs", headers={"Authorization": f"Bearer {made['key']}"})
        assert answer.json()["items"] == []
        new = own.json("keys", "rotate", made["key_id"], "--overlap=1h", "--json")
        assert own("keys", "revoke", made["key_id"]).stdout == f"key {made['key_id']} is revoked\n"
        gone = httpx.get(f"{server.url}/runs", headers={"Authorization": f"Bearer {made['key']}"})
        assert gone.status_code == 401
        listed = own("keys", "list")
        assert "revoked 20" in listed.stdout
        assert made["key"] not in listed.stdout
        log = server.log.read_text()
        assert "ms_" not in log
    here = [json.loads(line) for line in own("keys", "list", "--json").stdout.splitlines()]
    assert {key["key_id"] for key in here} >= {made["key_id"], new["key_id"]}
    again = own("keys", "rotate", new["key_id"])
    assert KEY.fullmatch(again.stdout)
    assert own("keys", "revoke", new["key_id"]).returncode == 0
    unknown = own("keys", "revoke", "00000000")
    assert unknown.returncode == 2
    assert "there is no key" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scope=everything"], "--scopes.0: Input should be 'runs:read', 'runs:write'"),
        (["--scope=admin", "--expires=soon"], "--expires is 'soon'; write a span such as 30d"),
        (["--scope=admin", "--expires=2020-01-01"], "which is past"),
        ([], "Missing option '--scope'"),
    ],
)
def test_what_is_wrong_is_said(own: Cli, words: list[str], said: str) -> None:
    refused = own("keys", "create", "--name=x", *words)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not refused.stdout


def test_spans_and_ends_are_read() -> None:
    assert read_span("90m", "--overlap") == timedelta(minutes=90)
    assert read_span("0s", "--overlap") == timedelta(0)
    assert abs(read_end("2w") - clock.now() - timedelta(weeks=2)) < timedelta(seconds=5)
    assert read_end("2027-01-31").isoformat() == "2027-01-31T00:00:00+00:00"
    assert read_end("2027-01-31T12:00:00+02:00").utcoffset() == timedelta(hours=2)
    for text in ("1", "d", "-1d", "1 d", "", "1y", "9999999d"):
        with pytest.raises(Invalid):
            read_span(text, "--overlap")
