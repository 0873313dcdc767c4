"""Checks of a Postgres server and of the way to it."""

from app.doctor.finding import Finding, ok, warning, wrong
from app.settings import Settings
from app.store.inspection import PostgresFacts

OLDEST = 130000
"""Postgres 13: what is older gets no corrections any more."""
CONNECTIONS_PER_PROCESS = 30
SKEW_SECONDS = 1.0


def check_version(facts: PostgresFacts, _settings: Settings) -> Finding:
    """Whether the server is one that is looked after."""
    version = f"Postgres {facts.version // 10_000}.{facts.version % 10_000}"
    if facts.version < OLDEST:
        return warning("database", f"{version} answers, which nobody corrects any more", "upgrade the server")
    return ok("database", f"{version} answers")


def check_durability(facts: PostgresFacts, _settings: Settings) -> Finding:
    """Whether a commit is on disk when it is answered."""
    off = [name for name in ("fsync", "full_page_writes") if facts.settings[name] == "off"]
    if off:
        return wrong("durability", f"{', '.join(off)} is off: a crash may destroy the database", "set it to on")
    if facts.settings["synchronous_commit"] == "off":
        return warning(
            "durability",
            "synchronous_commit is off: a crash of the server loses the last runs that were accepted",
            "set it to on, for the server or for the database",
        )
    return ok("durability", "every commit is on disk when it is answered")


def check_autovacuum(facts: PostgresFacts, _settings: Settings) -> Finding:
    """Whether dead rows are removed."""
    if "off" in {facts.settings["autovacuum"], facts.settings["track_counts"]}:
        return warning("autovacuum", "it is off: tables and indexes only grow, and get slower", "set it to on")
    return ok("autovacuum", "on")


def check_connections(facts: PostgresFacts, _settings: Settings) -> Finding:
    """Whether the processes that there are, and one more, find connections."""
    allowed = int(facts.settings["max_connections"]) - int(facts.settings["superuser_reserved_connections"])
    processes = max(1, facts.work.workers)
    needed = CONNECTIONS_PER_PROCESS * processes
    said = f"{facts.connections} of {allowed} are in use; {processes} processes may want {needed}"
    if needed > allowed:
        return warning("connections", said, f"set max_connections to {needed + 20} or more, or run fewer processes")
    return ok("connections", said)


def check_pooler(facts: PostgresFacts, _settings: Settings) -> Finding:
    """Whether notifications come through, which a pooler of transactions does not let them."""
    way = "through a pooler" if facts.pooled else "to the server itself"
    if not facts.hears:
        return wrong(
            "notifications",
            f"the connection goes {way}, and what is notified does not arrive: readers and workers wait for polls",
            "use session pooling (pool_mode = session), or the server's own address",
        )
    return ok("notifications", f"they arrive; the connection goes {way}")


def check_clock(facts: PostgresFacts, settings: Settings) -> Finding:
    """Whether we and the server agree on the time."""
    skew = facts.skew_seconds
    if abs(skew) > SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        said = f"this machine is {abs(skew):.1f} s {ahead} the database; times and retention are off by as much"
        judge = wrong if abs(skew) > settings.lease_seconds else warning
        return judge("clock", said, "synchronise both clocks (NTP)")
    return ok("clock", f"{abs(skew) * 1000:.0f} ms from the database's")


CHECKS = (check_version, check_durability, check_autovacuum, check_connections, check_pooler, check_clock)
