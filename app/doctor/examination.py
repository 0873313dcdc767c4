"""The whole examination: which checks there are, in which order, and which need what others have found."""

from collections.abc import Callable, Iterator, Mapping

from app.client.client import Client
from app.doctor import configuration, postgres, service, sqlite, work
from app.doctor.finding import Finding, wrong
from app.errors import ConfigurationError
from app.settings import Settings
from app.store.database import check_url
from app.store.inspection import Unreachable, Work, inspect_postgres, inspect_sqlite


def examine(
    environment: Mapping[str, str],
    load_settings: Callable[[], Settings],
    connect: Callable[[], Client],
    *,
    named: bool,
    through: bool,
) -> Iterator[Finding]:
    """Every check that makes sense, as it ends.

    `named` says that somebody claims that a service is at the client's address, `through` that a stream is to be tried.
    """
    names = configuration.check_names(environment)
    try:
        settings = load_settings()
        check_url(settings.database_url)
    except ConfigurationError as error:
        yield wrong("settings", error.message, "everything else depends on it")
        return
    yield names
    yield configuration.check_workflows(settings)
    yield configuration.check_lease(settings)
    yield configuration.check_descriptors(settings)
    yield from check_database(settings)
    yield configuration.check_model(settings)
    yield from _check_service(settings, connect, named=named, through=through)


def check_database(settings: Settings) -> Iterator[Finding]:
    """All that a database tells."""
    found: Work | None
    try:
        if settings.embedded:
            facts = inspect_sqlite(settings.database_url)
            yield from (check(facts) for check in sqlite.CHECKS)
            found = facts.work
        else:
            server = inspect_postgres(settings.database_url, lease_seconds=settings.lease_seconds)
            yield from (check(server, settings) for check in postgres.CHECKS)
            found = server.work
    except Unreachable as error:
        yield wrong("database", str(error), "start it, or correct MILLSTREAM_DATABASE_URL")
        return
    except ConfigurationError as error:
        yield wrong("database", error.message, "install it")
        return
    if found is None:
        return
    yield work.check_migrations(found, settings)
    if found.revision is not None:
        yield from (check(found, settings) for check in work.CHECKS[1:])


def _check_service(
    settings: Settings, connect: Callable[[], Client], *, named: bool, through: bool
) -> Iterator[Finding]:
    try:
        client = connect()
    except ConfigurationError as error:
        yield wrong("service", error.message, "name it")
        return
    with client:
        version = service.ask_version(client, named=named)
        if isinstance(version, Finding):
            yield version
            return
        yield service.check_version(client, version, settings)
        yield service.check_readiness(client)
        if through:
            yield service.check_stream(client)
