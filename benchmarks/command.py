"""How the programs of this folder run: an end by SIGTERM stops the servers too."""

import asyncio
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import uvloop


def run(program: Coroutine[Any, Any, int]) -> NoReturn:
    """Run it on the loop that servers use, and leave with its exit code."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of connections, here and in the servers

    async def stoppable() -> int:
        task = asyncio.ensure_future(program)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    sys.exit(uvloop.run(stoppable()))
