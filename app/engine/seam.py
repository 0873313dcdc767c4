"""The engine's seam: where and when a run executes. Everything else about a run is the same under every engine."""

from typing import Protocol

from app.store.database import Transaction
from app.store.tables import RunRow, SessionRow


class Engine(Protocol):
    """Decides which process executes a run that is ready, and when."""

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""

    @property
    def draining(self) -> bool:
        """Whether no new run is taken."""

    async def start(self) -> None:
        """Begin to execute runs, first those that an earlier process left."""

    def submit(self, transaction: Transaction, run: RunRow, arriving: SessionRow | None = None) -> None:
        """Have a ready run executed, if and only if the transaction is committed.

        Of a run that is just being accepted, `arriving` is the session, locked. Where this process has room it begins
        the run in this very transaction: it changes the row, which is yet to be written.
        """

    async def cancel(self, run: RunRow) -> None:
        """Stop a run that is executing, wherever it is."""

    async def drain(self) -> None:
        """Claim nothing more, give runs their time to end, and leave the others to be recovered."""
