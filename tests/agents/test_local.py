"""The real local model."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel

from app import Agent
from app.agents.local import LocalServer, local_server
from app.agents.models import local_model_file

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(local_model_file() is None, reason="the extra local-llm is not installed"),
]

LONGEST_STALL_SECONDS = 0.25
"""On an idle machine it is 0.04; loaded in the same process, the model would stall the loop for 0.5."""


@pytest.fixture
def server() -> LocalServer:
    """One that no other test has used."""
    model = local_model_file()
    assert model is not None
    return LocalServer(model)


def test_an_answer_in_pieces() -> None:
    agent = Agent(instructions="Be brief.")
    pieces = [response.content for response in agent.run("Write one sentence on bread.", stream=True)]
    assert agent.small
    assert agent.run_response is not None
    assert len(pieces) > 1
    assert "".join(pieces) == agent.run_response.content


def test_a_response_model_is_kept_to() -> None:
    class Loaf(BaseModel):
        """Enough for a model of this size."""

        crusty: bool

    assert isinstance(Agent(response_model=Loaf).run("Describe a loaf of bread.").content, Loaf)


def test_whoever_asks_at_once_shares_one_process(server: LocalServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        endpoints = set(pool.map(lambda _: server.endpoint(), range(8)))
    assert len(endpoints) == 1


def test_a_server_that_has_died_is_started_again(server: LocalServer) -> None:
    first = server.endpoint()
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    assert server.endpoint() != first


@pytest.mark.anyio
async def test_neither_loading_nor_writing_stalls_the_loop() -> None:
    local_server.cache_clear()
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - before - 0.005)

    ticking = asyncio.create_task(tick())
    await Agent(instructions="Be brief.").run("Write one sentence on bread.")
    ticking.cancel()
    assert max(gaps) < LONGEST_STALL_SECONDS


def test_it_dies_with_its_parent_and_says_nothing_on_stdout() -> None:
    code = (
        "import time; from app.agents.local import local_server; server = local_server(); server.endpoint();"
        "print(server._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    assert parent.communicate()[0] == ""
    deadline = time.monotonic() + 5
    while _alive(child):
        assert time.monotonic() < deadline, "the model's process has outlived its parent"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # whoever adopts it may be slow to bury it
    status = Path(f"/proc/{process}/status")
    return not status.exists() or "\nState:\tZ" not in status.read_text(encoding="utf-8")
