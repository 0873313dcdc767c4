"""What a run may still say: events, and their bytes.

It is counted where author code speaks, not where events are written: a later attempt, which says again what is in the
log, counts the same and ends at the same place. What the server says of a run by itself, as of its end, is not counted.
"""

from app.settings import Settings

EVENTS_OF_A_STEP = 2
"""Its start and its end; those of a question too."""
UNLIMITED = 2**63


class OutputExceeded(BaseException):
    """The run has said more than it may. No Exception, so that author code cannot swallow it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Allowance:
    """The rest of one attempt's."""

    def __init__(self, settings: Settings) -> None:
        self.exceeded: OutputExceeded | None = None
        """Raised once; whatever author code makes of it, the run has failed."""
        self._settings = settings
        self._events = settings.max_events_per_run or UNLIMITED
        self._bytes = settings.max_event_bytes_per_run or UNLIMITED
        self._event_bytes = settings.max_event_bytes or UNLIMITED

    def spend(self, events: int, size: int) -> None:
        """Count what is about to be said; raises OutputExceeded when that is too much."""
        self._events -= events
        self._bytes -= size
        if self._events < 0 or self._bytes < 0 or size > self._event_bytes:
            self.exceeded = self.exceeded or self._excess(size)
            raise self.exceeded

    def _excess(self, size: int) -> OutputExceeded:
        settings = self._settings
        if self._events < 0:
            return OutputExceeded(
                "too_many_events",
                f"the run causes more than {settings.max_events_per_run} events (MILLSTREAM_MAX_EVENTS_PER_RUN)",
            )
        if self._bytes < 0:
            return OutputExceeded(
                "too_much_output",
                f"the run says more than {settings.max_event_bytes_per_run} bytes (MILLSTREAM_MAX_EVENT_BYTES_PER_RUN)",
            )
        return OutputExceeded(
            "event_too_large",
            f"an event, or the result of a step, has {size} bytes, more than {settings.max_event_bytes}"
            " (MILLSTREAM_MAX_EVENT_BYTES)",
        )


def allowance_of(settings: Settings) -> Allowance | None:
    """A run's, whole; None where nothing is limited, so that an event costs nothing."""
    limits = (settings.max_events_per_run, settings.max_event_bytes_per_run, settings.max_event_bytes)
    return None if limits == (None, None, None) else Allowance(settings)
