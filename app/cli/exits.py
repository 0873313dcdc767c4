"""The exit codes: they tell how a run ended, or why a command could not do its work."""

from typing import Literal

COMPLETED = 0
"""The command did its work; a run that was followed has completed."""
FAILED = 1
"""The run that was followed has failed; the doctor has found something wrong."""
USAGE = 2
"""The command line, an argument or a setting is not right."""
CANCELLED = 3
"""The run that was followed has been cancelled."""
SERVER = 4
"""No server answers, or it has refused."""
DETACHED = 130
"""Ctrl-C: the run that was followed goes on."""

HELP = "Exit codes: 0 completed, 1 failed, 2 usage, 3 cancelled, 4 no server or refused by it, 130 left by Ctrl-C."

Status = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]


def of_run(status: str) -> int:
    """The exit code for how a run ended."""
    return {"failed": FAILED, "cancelled": CANCELLED}.get(status, COMPLETED)
