"""The ledger of the suite: each call of a step, when and by which process, in a file outside the database."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

_NUMBERS = count(1)


@dataclass
class Call:
    """One execution of a step's function, on the wall clock; `ended_at` is None where its process died in it."""

    run_id: str
    step: str
    process_id: int
    begun_at: float
    ended_at: float | None = None


@dataclass
class Calls:
    """All of them, by run and step."""

    of: dict[tuple[str, str], list[Call]] = field(default_factory=lambda: defaultdict(list))

    @property
    def repeated(self) -> int:
        """Calls beyond the first of their step."""
        return sum(len(calls) - 1 for calls in self.of.values())


@contextmanager
def recorded(ledger: str, run_id: str | None, step: str) -> Iterator[None]:
    """Write a line when the call begins, and one when it has ended."""
    key = f"{os.getpid()}-{next(_NUMBERS)}"
    _write(ledger, f"call {key} {run_id} {step} {time.time():.6f}")
    yield
    _write(ledger, f"end {key} {time.time():.6f}")


def read_calls(ledger: Path) -> Calls:
    """What the ledger says."""
    calls, by_key = Calls(), dict[str, Call]()
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        kind, key, *rest = line.split(" ")
        if kind == "end":
            by_key[key].ended_at = float(rest[0])
            continue
        run_id, step, begun_at = rest
        call = by_key[key] = Call(run_id, step, int(key.partition("-")[0]), float(begun_at))
        calls.of[run_id, step].append(call)
    return calls


def _write(ledger: str, line: str) -> None:
    """One line, at once and whole; what is written survives the process."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
