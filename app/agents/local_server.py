"""The process that serves the local model; `app.agents.local` starts it, and it ends with whoever started it.

A process of its own, because loading a model holds Python's global lock for half a second, which would stall every
stream of the service. It runs as a file, not as a module of the package, so it imports nothing of Millstream's.
Standard input carries one line of JSON with what to serve, and stays open: its end, which the operating system brings
about even when the parent is killed, is the signal to go. Standard output carries one line with the address.
"""

import json
import os
import sys
import threading
from importlib import import_module
from typing import Any, TextIO

CONTEXT_TOKENS = 4096
"""For all slots together: in each, a short prompt and an answer of 400 tokens fit several times over."""
SLOTS = 2
NICENESS = 10
"""The event loop that feeds every stream comes first where processors are few."""
PARENT_CHECK_SECONDS = 1.0
"""The second sign of a dead parent, should another process have inherited its end of the pipe."""


def main() -> None:
    """Serve until standard input ends or the parent is gone."""
    parent = os.getppid()
    report = _claim_stdout()
    order = json.loads(sys.stdin.readline())
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    try:
        server = _serve(order)
        answer = {"address": server.listening_address}
    except Exception as error:  # whatever the library raises, the parent is to say it
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=report, flush=True)
    if "address" in answer:
        _wait(parent)
    os._exit(0)  # the native threads have nothing worth waiting for


def _claim_stdout() -> TextIO:
    """The pipe to the parent; what native code prints goes to standard error from here on."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return report


def _serve(order: dict[str, Any]) -> Any:
    library = import_module("xllamacpp")
    parameters = library.CommonParams()
    parameters.model.path = order["model"]
    parameters.api_keys = [order["key"]]
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = SLOTS
    parameters.cache_ram_mib = 0
    parameters.verbosity = -1
    parameters.ui = False
    parameters.endpoint_slots = False
    return library.Server(parameters)


def _wait(parent: int) -> None:
    reader = threading.Thread(target=sys.stdin.read, daemon=True)
    reader.start()
    while reader.is_alive() and os.getppid() == parent:
        reader.join(PARENT_CHECK_SECONDS)


if __name__ == "__main__":
    main()
