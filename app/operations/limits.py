"""What callers may ask of runs: how many may wait, and how long one may take."""

from dataclasses import dataclass

from app.errors import Invalid, TooMany
from app.store import queue
from app.store.database import Transaction
from app.store.tables import SessionRow

FULL_QUEUE_SECONDS = 5
"""When a caller whose queue is full may come again; nobody knows how long its runs take."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What callers may ask of runs; None stands for no limit."""

    queued_per_tenant: int | None = None
    queued_per_session: int | None = None
    seconds: float | None = None

    def check_seconds(self, seconds: float | None) -> None:
        """Raises Invalid for a run that wants more time than runs may have."""
        if self.seconds is not None and seconds is not None and seconds > self.seconds:
            raise Invalid(
                f"timeout_seconds is {seconds:g}, and a run has {self.seconds:g} s at most"
                " (MILLSTREAM_MAX_RUN_SECONDS); send no more than that, or none",
                code="timeout_too_long",
                max_run_seconds=self.seconds,
            )

    def seconds_of(self, wanted: float | None) -> float | None:
        """The time that a run gets."""
        return self.seconds if wanted is None else wanted

    def at_most(self, wanted: float | None) -> float | None:
        """The same of a run that was accepted when runs had more."""
        return wanted if wanted is None or self.seconds is None else min(wanted, self.seconds)

    def check_tenant(self, transaction: Transaction, tenant: str) -> None:
        """Raises TooMany when as many of its runs wait as may; those that come in the same moment are not seen."""
        most = self.queued_per_tenant
        if most is not None and queue.count_queued(transaction, tenant, at_most=most) >= most:
            raise TooMany(
                f"{most} runs of your tenant wait, which is the limit (MILLSTREAM_MAX_QUEUED_RUNS_PER_TENANT);"
                " start this one when some have ended",
                code="tenant_queue_full",
                retry_after_seconds=FULL_QUEUE_SECONDS,
            )

    def check_position(self, session: SessionRow, position: int | None) -> None:
        """Raises TooMany for a run that is further back in its session's queue than that may be long."""
        most = self.queued_per_session
        if most is not None and position is not None and position > most:
            raise TooMany(
                f"{most} runs wait for the session {session.session_id!r}, which is the limit"
                " (MILLSTREAM_MAX_QUEUED_RUNS_PER_SESSION); start this one when some have ended",
                code="session_queue_full",
                retry_after_seconds=FULL_QUEUE_SECONDS,
            )


NO_LIMITS = RunLimits()
