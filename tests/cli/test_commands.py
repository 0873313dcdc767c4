import json
import os
import re
import subprocess

import pytest

from tests.cli.conftest import MILLSTREAM, Cli
from tests.support.ages import half_remove

RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_workflows_are_listed_and_shown(server: Cli) -> None:
    lines = server("workflows", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["WORKFLOW", "everything", "fails", "slow"]
    assert "[count] [seconds]" in lines[3]
    assert lines[3].endswith("Count slowly.")
    shown = server("workflows", "show", "everything").stdout
    assert re.search(r"^text +str +\(required\)$", shown, re.MULTILINE)
    assert "millstream run everything --text=… --follow" in shown
    assert server.json("workflows", "show", "slow", "--json")["parameters"][0]["name"] == "count"


def test_a_run_is_started_and_shown(server: Cli) -> None:
    done = server("run", "slow", "--session-id=started", "--user-id=ada")
    assert done.returncode == 0
    run_id = RUN_ID.findall(done.stdout)[0]
    assert f"millstream runs follow {run_id}" in done.stderr
    assert server("runs", "follow", run_id).returncode == 0
    shown = server("runs", "show", run_id).stdout
    assert re.search(r"^status +completed$", shown, re.MULTILINE)
    assert re.search(r"^content +word0 word1 word2", shown, re.MULTILINE)
    assert server.json("runs", "show", run_id, "--json")["user_id"] == "ada"


def test_arguments_reach_the_workflow_as_its_schema_wants_them(server: Cli) -> None:
    words = ["--text=5", "--number=-3", "--ratio=2", "--flag=yes", "--words=a", "--words=b", "--kind=b", "--either=7"]
    words += ["--anything=[1]", '--point={"x":1}', '--scores={"a":1}']
    done = server("run", "everything", *words, "--follow")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "text": "5",
        "number": -3,
        "ratio": 2.0,
        "flag": True,
        "words": ["a", "b"],
        "kind": "b",
        "either": 7,
        "anything": [1],
        "point": {"x": 1, "y": 0},
        "scores": {"a": 1},
    }


def test_an_input_document_and_arguments_go_together(server: Cli) -> None:
    done = server("run", "everything", '--input={"text": "a", "number": 1}', "--number=2", "--follow")
    assert json.loads(done.stdout) == {"text": "a", "number": 2}


def test_following_shows_steps_beside_and_text_on_standard_output(server: Cli) -> None:
    done = server("run", "slow", "--follow", "--session-id=followed")
    assert done.returncode == 0
    assert done.stdout.split() == ["word0", "word1", "word2"]
    notes = done.stderr.splitlines()
    assert notes[0] == "▶ slow in session followed"
    assert "· Reading 3/3" in notes
    assert "· state saved as revision 1" in notes
    assert re.fullmatch(r"✓ completed in [\d.]+ m?s", notes[-2])
    assert notes[-1] == "  session followed, revision 1"


def test_json_is_a_line_for_each_event(server: Cli) -> None:
    done = server("run", "slow", "--follow", "--json", "--count=2")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, 8))
    assert events[-1]["event"] == "RunFinished"
    assert done.stderr == ""
    again = server("runs", "follow", events[0]["run_id"], "--json", "--after=5")
    assert again.stdout.splitlines() == done.stdout.splitlines()[5:]
    assert server("runs", "follow", events[0]["run_id"], "--after=7").returncode == 0


def test_the_exit_code_tells_how_a_run_ended(server: Cli) -> None:
    failed = server("run", "fails", "--follow")
    assert failed.returncode == 1
    assert "author_error: ValueError: kaput (step boom)" in failed.stderr
    run_id = server.json("run", "slow", "--count=1000", "--json")["run_id"]
    assert "is being cancelled" in server("runs", "cancel", run_id).stdout
    cancelled = server("runs", "follow", run_id)
    assert cancelled.returncode == 3
    assert "■ cancelled in" in cancelled.stderr
    again = server("runs", "cancel", run_id)
    assert (again.returncode, again.stdout.strip()) == (0, f"run {run_id} is cancelled")
    timeout = server("run", "slow", "--count=1000", "--timeout-seconds=0.1", "--follow")
    assert timeout.returncode == 1


def test_a_key_starts_one_run(server: Cli) -> None:
    first, second = (server.json("run", "slow", "--idempotency-key=k", "--json") for _ in range(2))
    assert first["run_id"] == second["run_id"]


def test_a_busy_session_refuses_when_asked_to(server: Cli) -> None:
    run_id = server.json("run", "slow", "--count=1000", "--session-id=busy", "--json")["run_id"]
    refused = server("run", "slow", "--session-id=busy", "--on-busy=reject")
    assert refused.returncode == 4
    assert refused.stderr.startswith("millstream: the session 'busy' is busy")
    server("runs", "cancel", run_id)


def test_runs_are_listed(server: Cli) -> None:
    for _ in range(3):
        assert server("run", "slow", "--count=0", "--session-id=listed", "--follow").returncode == 0
    table = server("runs", "list", "--session-id=listed", "--status=completed").stdout.splitlines()
    assert table[0].split() == ["RUN", "WORKFLOW", "SESSION", "STATUS", "CREATED", "TOOK"]
    assert len(table) == 4
    assert all(RUN_ID.match(line) for line in table[1:])
    assert len(server("runs", "list", "--limit=2").stdout.splitlines()) == 3
    nothing = server("runs", "list", "--session-id=nobody")
    assert (nothing.stdout, nothing.stderr) == ("", "there are no such runs\n")


def test_a_session_lives_and_dies(server: Cli) -> None:
    made = server.json("sessions", "create", "slow", "--session-id=my session", '--state={"a": 1}', "--json")
    assert (made["session_id"], made["revision"]) == ("my session", 1)
    assert json.loads(server("sessions", "patch", "my session", '{"b": [1, 2]}').stdout) == {"a": 1, "b": [1, 2]}
    late = server("sessions", "patch", "my session", '[{"op": "remove", "path": "/a"}]', "--if-match=1")
    assert late.returncode == 4
    assert "is at revision 2" in late.stderr
    patched = server("sessions", "patch", "my session", '[{"op": "remove", "path": "/a"}]', "--if-match=2")
    assert json.loads(patched.stdout) == {"b": [1, 2]}
    assert patched.stderr == "revision 3\n"
    table = server("sessions", "revisions", "my session").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["REVISION", "1", "2", "3"]
    assert table[3].endswith("remove /a")
    assert server.json("sessions", "state", "my session", "--revision=1") == {"a": 1}
    assert server.json("sessions", "restore", "my session", "1") == {"a": 1}
    fork = server.json("sessions", "fork", "my session", "--revision=2", "--new-session-id=copy", "--json")
    assert fork["session_id"] == "copy"
    assert server.json("sessions", "rename", "copy", "A copy", "--json")["name"] == "A copy"
    assert "A copy" in server("sessions", "list", "--name=A copy").stdout
    assert server("sessions", "delete", "copy").returncode == 0
    gone = server("sessions", "show", "copy")
    assert (gone.returncode, gone.stderr) == (4, "millstream: there is no session 'copy'\n")


def test_a_patch_comes_from_standard_input(server: Cli) -> None:
    server("sessions", "create", "slow", "--session-id=piped")
    done = subprocess.run(
        [MILLSTREAM, "sessions", "patch", "piped", "-"],
        input='{"a": "ü"}',
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout) == {"a": "ü"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "nobody"], 4, "there is no workflow 'nobody'; GET /workflows lists them: everything, fails, slow"),
        (["run", "everything"], 2, "everything needs --text=…; `millstream workflows show everything` tells"),
        (["run", "slow", "--count=x"], 2, "--count of slow takes a whole number, not 'x'"),
        (["run", "slow", "--colour=x"], 2, "slow has no argument --colour; it takes --count, --seconds"),
        (["run", "slow", "count=1"], 2, "'count=1' is no argument; write --name=value"),
        (["run", "slow", "--input=[1]"], 2, "--input is '[1]', which is JSON, but no object"),
        (["run", "slow", "--session-id=a/b"], 2, "--session-id: a session id has no control characters"),
        (["run", "slow", "--timeout-seconds=0"], 2, "--timeout-seconds: Input should be greater than 0"),
        (["runs", "show", "x"], 4, "there is no run 'x'"),
        (["runs", "follow", "x"], 4, "there is no run 'x'"),
        (["sessions", "patch", "x", "{"], 2, "the patch is '{', which is no JSON"),
        (["sessions", "patch", "x", "3"], 2, "an object is a merge patch, a list a JSON patch"),
        (["sessions", "create", "slow", "--state=[]"], 2, "--state is '[]', which is JSON, but no object"),
        (["runs", "list", "--url=ftp://x"], 4, "'ftp://x' is no address of a server"),
    ],
)
def test_what_is_wrong_is_one_sentence(server: Cli, words: list[str], code: int, said: str) -> None:
    done = server(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("millstream: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_usage_errors_are_typers(server: Cli) -> None:
    assert server("runs", "list", "--status=odd").returncode == 2
    assert server("nothing").returncode == 2


def test_a_reader_that_leaves_is_no_error_of_ours(server: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [MILLSTREAM, "workflows", "list"], env=server.environment(), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert b"Traceback" not in done.stderr


def test_following_what_is_no_longer_kept_says_so_and_what_is_left(server: Cli) -> None:
    done = server("run", "slow", "--json", "--session-id=gone", "--follow")
    run_id = json.loads(done.stdout.splitlines()[0])["run_id"]
    half_remove(f"sqlite:///{server.folder}/millstream.db", run_id, upto=2)
    for words in (("runs", "follow", run_id), ("runs", "follow", run_id, "--json")):
        followed = server(*words)
        assert (followed.returncode, followed.stdout) == (4, "")
        assert f"the events of run {run_id} are no longer kept" in followed.stderr
        assert "Traceback" not in followed.stderr
    assert server("runs", "show", run_id).returncode == 0
    assert server("runs", "retry", run_id).returncode == 0
