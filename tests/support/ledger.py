"""A ledger that workflows write outside the database: what was really done, and how often."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Ledger:
    """A file of lines; each is written at once and survives the process."""

    def __init__(self, file: str) -> None:
        self._file = file

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One execution of a step: a line when it begins, a line when it has ended."""
        self._write(f"call {name}")
        yield
        self._write(f"end {name}")

    def note(self, what: str) -> int:
        """Write a line; how often it has been written, this time included."""
        self._write(f"note {what}")
        return self._count("note")[what]

    def calls(self) -> Counter[str]:
        """How often each step was begun."""
        return self._count("call")

    def ends(self) -> Counter[str]:
        """How often each step ran to its end."""
        return self._count("end")

    def _write(self, line: str) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, f"{line}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _count(self, kind: str) -> Counter[str]:
        with Path(self._file).open(encoding="utf-8") as lines:
            return Counter(line.split()[1] for line in lines if line.startswith(f"{kind} "))
