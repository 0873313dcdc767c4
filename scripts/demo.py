"""The demonstration behind `make demo`: a service of its own, two blog posts through HTTP, and what is left of them.

It ends by Ctrl-C, or by itself with ONCE=1 in the environment.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from app.cli.output import moment, print_document, print_table
from app.cli.views import TerminalView
from app.client.client import Client
from app.client.errors import ClientError, ServerUnreachable
from app.wire.runs import StartRun

WORKFLOW = "blog-post-generator"
TOPIC = "resumable event streams"
SESSION = "demo"
PORT = 8000
LOG = "millstream.log"
TEXT_CHARACTERS, MEMBERS, ITEMS = 90, 4, 1
"""Of the state, how much is printed."""

START_SECONDS = 60
RUN_SECONDS = 240
"""Of a post by the small model on a slow machine; some 30 s are usual."""
STOP_SECONDS = 40

console = Console(highlight=False)


class DemoError(Exception):
    """The demonstration cannot go on."""


def main() -> int:
    """Show everything; the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the service is to be stopped, however this ends
    with own_terminal(), tempfile.TemporaryDirectory(prefix="millstream-demo-") as name:
        folder = Path(name)
        try:
            with service(folder, free_port()) as url, Client(url) as client:
                show(client)
                say_what_is_next(url)
                if not os.environ.get("ONCE"):
                    wait_for_interrupt()
        except KeyboardInterrupt:
            console.print("\nstopped")
        except (ClientError, DemoError) as error:
            console.print(Text(f"demo: {error}", style="red"))
            print_tail(folder)
            return 1
    return 0


def show(client: Client) -> None:
    """Two runs, the state, its history."""
    ask(client, "1. A first post: it is searched for, read and written.")
    ask(client, "2. The same question again: the session has the answer, which comes as one event.")
    title("3. What the session keeps now, shared by all of its runs.")
    command(f"curl {client.url}/sessions/{SESSION}/state")
    document = client.state(SESSION).document
    print_document(shortened(document))
    title("4. Who changed it, and when.")
    command(f"curl {client.url}/sessions/{SESSION}/state/revisions")
    rows = [
        (revision.revision, moment(revision.created_at), f"run {revision.run_id}", paths(revision.patch))
        for revision in client.revisions(SESSION)
    ]
    print_table(("revision", "created", "by", "paths"), rows, none="nobody")


def ask(client: Client, heading: str) -> None:
    """One run of the workflow, followed to its end; raises SystemExit when it does not end well."""
    title(heading)
    body = f'{{"input": {{"topic": "{TOPIC}"}}, "session_id": "{SESSION}"}}'
    command(
        f"curl -N {client.url}/workflows/{WORKFLOW}/runs -H 'Accept: text/event-stream'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    request = StartRun(input={"topic": TOPIC}, session_id=SESSION, timeout_seconds=RUN_SECONDS)
    with at_most(RUN_SECONDS + 60, "the run has not ended"), TerminalView() as view:
        for event in client.follow(client.start_run(WORKFLOW, request).run_id, on_loss=view.lost):
            view.show(event)
    if event.members["status"] != "completed":
        raise DemoError(f"the run has {event.members['status']}")


@contextmanager
def service(folder: Path, port: int) -> Iterator[str]:
    """The address of a service in a process of its own, on a database in the folder, until the block ends."""
    settings = {
        "MILLSTREAM_DATABASE_URL": f"sqlite:///{folder / 'millstream.db'}",
        "MILLSTREAM_HOST": "127.0.0.1",
        "MILLSTREAM_PORT": str(port),
        "MILLSTREAM_DRAIN_SECONDS": "1",
        "MILLSTREAM_SHIPPED_WORKFLOWS": "true",
    }
    program = [str(Path(sys.executable).with_name("millstream")), "serve"]
    url = f"http://127.0.0.1:{port}"
    with (folder / LOG).open("wb") as log:
        # a session of its own: Ctrl-C is for this program, which then asks the service to stop.
        process = subprocess.Popen(  # noqa: S603  this project's own program
            program, env=os.environ | settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until_ready(process, url)
            yield url
        finally:
            stop(process)


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the service answers; raises DemoError when it does not."""
    deadline = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise DemoError(f"the service did not start (exit code {process.returncode})")
            try:
                version = client.version().version
            except ServerUnreachable:
                time.sleep(0.1)
            else:
                console.print(f"Millstream {version} serves at {url}", style="bold green")
                return
    raise DemoError(f"the service did not answer within {START_SECONDS} seconds")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the service to stop, and see that it does."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        console.print("the service takes too long to stop and is killed", style="red")
        process.kill()
        process.wait()


def free_port() -> int:
    """Port 8000, or a free one when somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            console.print(f"port {PORT} is taken, so this uses port {port}", style="yellow")
            return port
    return PORT


def say_what_is_next(url: str) -> None:
    """Addresses to try."""
    title("Try next, from another terminal:")
    json = "-H 'Content-Type: application/json'"
    command(f"curl {url}/workflows")
    command(f'curl {url}/workflows/hello/runs -H \'Prefer: wait=5\' {json} -d \'{{"input": {{"name": "Ada"}}}}\'')
    command(f"curl '{url}/runs?session_id={SESSION}'")
    command(f'curl -X PATCH {url}/sessions/{SESSION}/state {json} -d \'{{"mood": "curious"}}\'')
    program = Path(sys.executable).with_name("millstream")
    command(f"{program} sessions revisions {SESSION} --url={url}")
    command(f"{program} run {WORKFLOW} --topic='session state' --follow --url={url}")
    console.print(f"and with a browser: {url}/docs", style="bold")


def wait_for_interrupt() -> None:
    """Leave the service running until Ctrl-C."""
    console.print("\nThe service is running; Ctrl-C ends it.", style="bold")
    while True:
        time.sleep(3600)


@contextmanager
def at_most(seconds: int, complaint: str) -> Iterator[None]:
    """Raises DemoError in a block that takes longer, whatever it waits for."""

    def complain(_number: int, _frame: object) -> NoReturn:
        raise DemoError(f"{complaint} after {seconds} seconds")

    signal.signal(signal.SIGALRM, complain)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextmanager
def own_terminal() -> Iterator[None]:
    """Have Ctrl-C to ourselves: make, which started this, would end with an error of its own."""
    if not (sys.stdin.isatty() and hasattr(os, "tcsetpgrp")):
        yield
        return
    before, ours = os.tcgetpgrp(0), os.getpgrp()
    if before != ours or os.getpid() == ours:  # in the background, or nobody's child in this group
        yield
        return
    handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # sent to whoever takes the terminal from behind
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, before)
        signal.signal(signal.SIGTTOU, handler)


def print_tail(folder: Path) -> None:
    """The last lines that the service wrote."""
    log = folder / LOG
    for line in log.read_text(errors="replace").splitlines()[-15:] if log.exists() else ():
        console.print(Text(f"  {line}", style="dim"))


def title(text: str) -> None:
    """A heading."""
    console.print(Text(f"\n{text}", style="bold magenta"))


def command(text: str) -> None:
    """What one would type."""
    console.print(Text(f"$ {text}", style="bold"), soft_wrap=True)


def shortened(value: Any) -> Any:
    """A part of the state, short enough for a screen."""
    if isinstance(value, dict):
        shown = {name: shortened(member) for name, member in list(value.items())[:MEMBERS]}
        return shown | ({"…": f"{len(value) - MEMBERS} more"} if len(value) > MEMBERS else {})
    if isinstance(value, list):
        items = [shortened(item) for item in value[:ITEMS]]
        return items + ([f"… {len(value) - ITEMS} more"] if len(value) > ITEMS else [])
    return f"{value[:TEXT_CHARACTERS]}…" if isinstance(value, str) and len(value) > TEXT_CHARACTERS else value


def paths(patch: list[dict[str, object]]) -> str:
    """What a patch touches."""
    return ", ".join(str(operation["path"]) for operation in patch)


if __name__ == "__main__":
    sys.exit(main())
