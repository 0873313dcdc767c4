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
from typing import IO, NoReturn

from app.cli.following import Following
from app.cli.output import compact, moment, print_document, print_table
from app.cli.views import TerminalView
from app.client.client import Client
from app.client.errors import ClientError, ServerUnreachable
from app.wire.runs import StartRun
from rich.console import Console
from rich.text import Text

WORKFLOW = "blog-post-generator"
TOPIC = "resumable event streams"
SESSION = "demo"
PORT = 8000

START_SECONDS = 60
RUN_SECONDS = 240
"""Of a post by the small model on a slow machine; some 30 s are usual."""
STOP_SECONDS = 40

console = Console(highlight=False)


def main() -> int:
    """Show everything; the exit code."""
    with own_terminal(), tempfile.TemporaryDirectory(prefix="millstream-demo-") as folder:
        port = free_port()
        with service(Path(folder), port), Client(f"http://127.0.0.1:{port}") as client:
            try:
                show(client)
            except ClientError as error:
                give_up(error.message, Path(folder))
            say_what_is_next(client.url)
            if not os.environ.get("ONCE"):
                wait_for_interrupt()
    return 0


def show(client: Client) -> None:
    """Two runs, the state, its history."""
    ask(client, "1. A first post: it is searched for, read and written.")
    ask(client, "2. The same question again: the session has the answer, which comes as one event.")
    title("3. What the session keeps now, shared by all of its runs.")
    command(f"curl {client.url}/sessions/{SESSION}/state")
    document = client.state(SESSION).document
    print_document({name: shortened(value) for name, value in document.items()})
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
    run = client.start_run(WORKFLOW, request)
    comeback = f"millstream runs follow {run.run_id} --url={client.url}"
    code = Following(client, run.run_id, TerminalView(), after=0, comeback=comeback).to_the_end()
    if code:
        raise SystemExit(code)


@contextmanager
def service(folder: Path, port: int) -> Iterator[None]:
    """The service in a process of its own, on a database in the folder, until the block ends."""
    settings = {
        "MILLSTREAM_DATABASE_URL": f"sqlite:///{folder / 'millstream.db'}",
        "MILLSTREAM_HOST": "127.0.0.1",
        "MILLSTREAM_PORT": str(port),
        "MILLSTREAM_DRAIN_SECONDS": "5",
    }
    program = [str(Path(sys.executable).with_name("millstream")), "serve"]
    with log_of(folder).open("wb") as log:
        # A session of its own: Ctrl-C is for this program, which then asks the service to stop.
        process = subprocess.Popen(
            program, env=os.environ | settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until_ready(process, folder, f"http://127.0.0.1:{port}")
            yield
        finally:
            stop(process)


def wait_until_ready(process: "subprocess.Popen[bytes]", folder: Path, url: str) -> None:
    """Wait until the service answers; gives up with what it said."""
    deadline = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                give_up(f"the service did not start (exit code {process.returncode})", folder)
            try:
                console.print(f"Millstream {client.version().version} serves at {url}", style="bold green")
            except ServerUnreachable:
                time.sleep(0.1)
            else:
                return
    give_up(f"the service did not answer within {START_SECONDS} seconds", folder)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the service to stop, and see that it does."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        console.print(f"the service did not stop within {STOP_SECONDS} seconds and is killed", style="red")
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
    for line in (
        f"open {url}/docs",
        f"curl {url}/workflows",
        f"curl {url}/workflows/hello/runs -H 'Prefer: wait=5' -H 'Content-Type: application/json'"
        ' -d \'{"input": {"name": "Ada"}}\'',
        f"curl {url}/runs?session_id={SESSION}",
        f"curl -X PATCH {url}/sessions/{SESSION}/state -H 'Content-Type: application/json' -d '{{\"mood\": \"curious\"}}'",
        f"{Path(sys.executable).with_name('millstream')} run {WORKFLOW} --topic='session state' --follow --url={url}",
    ):
        command(line)


def wait_for_interrupt() -> None:
    """Leave the service running until Ctrl-C."""
    console.print("\nThe service is running; Ctrl-C ends it.", style="bold")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("\nstopping")


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


def give_up(message: str, folder: Path) -> NoReturn:
    """End with the reason, and with the last lines that the service wrote."""
    console.print(Text(f"demo: {message}", style="red"))
    with log_of(folder).open(errors="replace") as log:
        print_tail(log)
    raise SystemExit(1)


def print_tail(log: IO[str]) -> None:
    """The last lines of a log."""
    for line in log.readlines()[-15:]:
        console.print(Text(f"  {line.rstrip()}", style="dim"))


def log_of(folder: Path) -> Path:
    """Where the service's log goes."""
    return folder / "millstream.log"


def title(text: str) -> None:
    """A heading."""
    console.print(Text(f"\n{text}", style="bold magenta"))


def command(text: str) -> None:
    """What one would type."""
    console.print(Text(f"$ {text}", style="bold"), soft_wrap=True)


def shortened(value: object) -> object:
    """A part of the state, short enough for a screen."""
    text = compact(value)
    return value if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"  # noqa: PLR2004


def paths(patch: list[dict[str, object]]) -> str:
    """What a patch touches."""
    return ", ".join(str(operation["path"]) for operation in patch)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("\nstopped")
        sys.exit(0)
