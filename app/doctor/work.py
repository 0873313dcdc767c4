"""Checks of the work in a database, the same on both."""

from app.doctor.finding import Finding, ok, warning, wrong
from app.settings import Settings
from app.store.inspection import STUCK_SECONDS, Work
from app.store.migrations import head_revision


def check_migrations(work: Work, settings: Settings) -> Finding:
    """Whether the tables are those of this version."""
    head = head_revision()
    if work.revision == head:
        return ok("migrations", f"at {head}, which this version needs")
    at = "there are no tables" if work.revision is None else f"the database is at {work.revision}"
    if work.revision is not None and work.revision > head:
        return wrong("migrations", f"{at}, and this version knows {head}", "install the newer version that made them")
    if settings.embedded:
        return ok("migrations", f"{at}; `millstream serve` will bring it to {head}")
    return wrong("migrations", f"{at}, and this version needs {head}", "run `millstream migrate`")


def check_workers(work: Work, settings: Settings) -> Finding:
    """Whether somebody executes runs."""
    if work.workers:
        silent = f"; {work.silent} went without a word, and will be forgotten" if work.silent else ""
        return ok("workers", f"{work.workers} alive{silent}")
    start = "start `millstream serve`" if settings.embedded else "start `millstream serve` or `millstream worker`"
    if work.waiting or work.left:
        return wrong("workers", f"none is alive, and {work.waiting + work.left} runs are to be executed", start)
    return warning("workers", "none is alive; nothing is to be executed", start)


def check_left(work: Work, settings: Settings) -> Finding:
    """Whether runs are executing nowhere."""
    if not work.left:
        return ok("left runs", "every run that executes has a live process")
    remedy = (
        "start `millstream serve`, which goes on with them"
        if settings.embedded
        else "start a process, each of which looks for such runs; those that there are may log why they do not"
    )
    return wrong("left runs", f"{work.left} runs belong to a process that is not alive", remedy)


def check_stuck(work: Work, _settings: Settings) -> Finding:
    """Whether runs that could begin do not."""
    if not work.stuck:
        return ok("stuck runs", f"none has had its turn for more than {STUCK_SECONDS} s without being taken")
    return wrong(
        "stuck runs",
        f"{work.stuck} runs have had their turn for more than {STUCK_SECONDS} s, and nobody has taken them",
        "start more workers, or raise MILLSTREAM_MAX_LIVE_RUNS or MILLSTREAM_AUTHOR_THREADS",
    )


CHECKS = (check_migrations, check_workers, check_left, check_stuck)
