"""Schedules and webhooks from the command line."""

import re

from tests.cli.conftest import Cli


def test_a_schedule_is_made_paused_run_and_deleted(server: Cli) -> None:
    made = server(
        "schedules", "create", "nightly", "slow", "30 2 * * *", "--timezone=Europe/Berlin", '--input={"count": 1}'
    )
    assert made.returncode == 0, made.stderr
    assert re.search(r"^cron +30 2 \* \* \* \(Europe/Berlin\)$", made.stdout, re.MULTILINE)
    assert re.search(r"^next +\d{4}-\d\d-\d\d 0[01]:30:00Z$", made.stdout, re.MULTILINE)
    assert re.search(r"^nightly +slow ", server("schedules", "list").stdout, re.MULTILINE)
    assert re.search(r"^next +paused$", server("schedules", "pause", "nightly").stdout, re.MULTILINE)
    run = server("schedules", "run", "nightly")
    run_id = run.stdout.strip()
    assert run_id in run.stderr
    assert server("runs", "follow", run_id).returncode == 0
    assert server.json("schedules", "show", "nightly", "--json")["last_run_id"] == run_id
    assert "paused" not in server("schedules", "resume", "nightly").stdout
    assert server("schedules", "delete", "nightly", "--yes").stderr == "deleted schedule nightly\n"
    gone = server("schedules", "show", "nightly")
    assert (gone.returncode, "there is no schedule 'nightly'" in gone.stderr) == (2, True)


def test_a_schedule_that_is_not_right(server: Cli) -> None:
    refused = server("schedules", "create", "s", "slow", "61 * * * *")
    assert (refused.returncode, "bad minute" in refused.stderr) == (4, True)
    refused = server("schedules", "create", "s", "slow", "0 * * * *", "--on-missed=always")
    assert refused.returncode == 2
    assert "--on-missed: Input should be 'skip' or 'run_once'" in refused.stderr


def test_a_webhook_is_made_seen_and_deleted(server: Cli) -> None:
    made = server("webhooks", "create", "https://hooks.invalid/a", "--event=RunFinished", "--event=RunPaused")
    assert made.returncode == 0, made.stderr
    assert re.search(r"^secret +whsec_\S+$", made.stdout, re.MULTILINE)
    assert "not shown again" in made.stderr
    webhook_id = re.findall(r"^webhook +(\S+)$", made.stdout, re.MULTILINE)[0]
    assert f"{webhook_id}  https://hooks.invalid/a  RunFinished, RunPaused" in server("webhooks", "list").stdout
    run = server.json("run", "slow", "--count=1", "--json")
    assert server("runs", "follow", run["run_id"]).returncode == 0
    shown = server("webhooks", "deliveries", webhook_id).stdout
    assert re.search(rf"{run['run_id']} +RunFinished +pending", shown)
    delivery = server.json("webhooks", "deliveries", "--run-id", run["run_id"], "--json")
    again = server("webhooks", "redeliver", delivery["delivery_id"])
    assert again.stderr == f"delivery {delivery['delivery_id']} is pending\n"
    assert re.search(r"^state +off$", server("webhooks", "update", webhook_id, "--off").stdout, re.MULTILINE)
    assert "whsec_" in server("webhooks", "rotate", webhook_id, "--overlap-seconds=0").stdout
    assert server("webhooks", "secret").stdout.startswith("whsec_")
    assert server("webhooks", "delete", webhook_id, "--yes").returncode == 0
    refused = server("webhooks", "create", "http://10.0.0.1/")
    assert (refused.returncode, "https://" in refused.stderr) == (4, True)
    assert server("webhooks", "deliveries").returncode == 2
