"""The tables. JSON is kept as the text that our encoder wrote, the same on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlmodel import Field, SQLModel

DEFAULT_TENANT = "default"
"""The tenant of everything that is made without a credential, and of the operator's own keys."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware moment in UTC; SQLite keeps it as text without the zone, which sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """To the database."""
        return _to_sqlite if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """From the database; Postgres answers in the zone of the session."""
        return _from_sqlite if dialect.name == "sqlite" else _in_utc


_ZONELESS = len("2026-11-22 10:20:30.123456")


def _to_sqlite(value: datetime | None) -> str | None:
    if value is None:
        return None
    utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return utc.isoformat(" ", "microseconds")[:_ZONELESS]


def _from_sqlite(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).replace(tzinfo=UTC)


def _in_utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


class Row(SQLModel):
    """Base of rows. A row is plain data: the classes that are tables derive from it, and are never made.

    Rows come from our own code and from the database, which both know what belongs into them: they are not validated,
    which would cost more than reading them.
    """

    metadata = metadata

    if not TYPE_CHECKING:  # for a type checker, SQLModel's own

        def __init__(self, **values: Any) -> None:
            self._hold(self._defaults() | values)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The row that has all these values, which become its own."""
        row: Self = cls.__new__(cls)
        row._hold(values)
        return row

    @property
    def values(self) -> dict[str, Any]:
        """What it holds, by column."""
        return self.__dict__

    def _hold(self, values: dict[str, Any]) -> None:
        object.__setattr__(self, "__dict__", values)
        object.__setattr__(self, "__pydantic_fields_set__", set())
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)

    @classmethod
    @cache
    def _defaults(cls) -> dict[str, Any]:
        return {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}


class SessionRow(Row):
    """A session: who it belongs to, its newest revision, and the run that has its turn."""

    tenant_id: str
    session_id: str
    workflow: str
    user_id: str | None = None
    name: str | None = None
    annotations: str = Field(default="{}", sa_type=Text)
    """The caller's `metadata`; SQLAlchemy keeps that name for itself."""
    revision: int = 0
    snapshot_cost: int = 0
    """What reading the newest state costs since the last snapshot, in bytes; see store/revisions.py."""
    run_count: int = 0
    """Runs ever accepted; numbers them in their order of arrival."""
    active_run_id: str | None = None
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class SessionTable(SessionRow, table=True):
    """The table of it."""

    __tablename__ = "sessions"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "session_id"),
        Index("ix_sessions_created", "tenant_id", "created_at", "session_id"),
        Index("ix_sessions_workflow", "tenant_id", "workflow", "created_at", "session_id"),
        Index("ix_sessions_user", "tenant_id", "user_id", "created_at", "session_id"),
        Index("ix_sessions_name", "tenant_id", "name", "created_at", "session_id"),
        {"sqlite_with_rowid": False},
    )


class RevisionRow(Row):
    """One change of a session's state: the RFC 6902 patch, who made it, and now and then the whole document."""

    tenant_id: str
    session_id: str
    revision: int
    created_at: datetime = Field(sa_type=Instant)
    run_id: str | None = None
    caller: str | None = None
    patch: str = Field(sa_type=Text)
    snapshot: str | None = Field(default=None, sa_type=Text)


class RevisionTable(RevisionRow, table=True):
    """The table of it."""

    __tablename__ = "session_revisions"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "session_id", "revision"),
        ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.session_id"], ondelete="CASCADE"
        ),
        Index(
            "ix_session_revisions_snapshot",
            "tenant_id",
            "session_id",
            "revision",
            sqlite_where=text("snapshot IS NOT NULL"),
            postgresql_where=text("snapshot IS NOT NULL"),
        ),
        Index(
            "ix_session_revisions_age",
            "tenant_id",
            "created_at",
            "session_id",
            sqlite_where=text("snapshot IS NOT NULL"),
            postgresql_where=text("snapshot IS NOT NULL"),
        ),
    )


class RunRow(Row):
    """One start of a workflow."""

    tenant_id: str
    run_id: str
    workflow: str
    session_id: str
    user_id: str | None = None
    status: str
    ordinal: int
    """Its number in the session's order of arrival."""
    attempt: int = 0
    worker_id: str | None = None
    """Who claimed it last."""
    input: str = Field(sa_type=Text)
    content: str | None = Field(default=None, sa_type=Text)
    content_truncated: bool = False
    error: str | None = Field(default=None, sa_type=Text)
    annotations: str = Field(default="{}", sa_type=Text)
    state_patch: str | None = Field(default=None, sa_type=Text)
    """The request's `session_state`: a merge patch that is applied when the run starts."""
    on_disconnect: str = "continue"
    timeout_seconds: float | None = None
    recoveries: int = 0
    """How often its worker died."""
    cancel_requested_at: datetime | None = Field(default=None, sa_type=Instant)
    question: str | None = Field(default=None, sa_type=Text)
    """Of a paused run: what it waits for, as `{request_id, schema}`."""
    paused_until: datetime | None = Field(default=None, sa_type=Instant)
    used_seconds: float = 0
    """Time that earlier attempts took, against the timeout."""
    claimed_at: datetime | None = Field(default=None, sa_type=Instant)
    """When the present attempt began."""
    base_revision: int | None = None
    """The state that the run started from."""
    session_revision: int | None = None
    """The state that it left."""
    created_at: datetime = Field(sa_type=Instant)
    started_at: datetime | None = Field(default=None, sa_type=Instant)
    finished_at: datetime | None = Field(default=None, sa_type=Instant)
    events_gone_upto: int | None = None
    """The number of its last event, from when retention begins to remove its events; see store/retention.py."""
    events_gone_at: datetime | None = Field(default=None, sa_type=Instant)
    """When none of them was left."""
    traceparent: str | None = None
    """The trace of the request that started it, as W3C writes it; None where there is none."""
    webhooks: str | None = Field(default=None, sa_type=Text)
    """What its events are posted to, as it was when the run was accepted; see engine/outbox.py. Few runs have any."""


class RunTable(RunRow, table=True):
    """The table of it."""

    __tablename__ = "runs"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "run_id"),
        ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.session_id"], ondelete="CASCADE"
        ),
        Index("ix_runs_session", "tenant_id", "session_id", "run_id"),
        Index("ix_runs_ordinal", "tenant_id", "session_id", "ordinal", unique=True),
        Index("ix_runs_workflow", "tenant_id", "workflow", "run_id"),
        Index("ix_runs_user", "tenant_id", "user_id", "run_id"),
        Index("ix_runs_status", "tenant_id", "status", "run_id"),
        Index(
            "ix_runs_queue",
            "tenant_id",
            "session_id",
            "ordinal",
            sqlite_where=text("status = 'queued'"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_runs_waiting",
            "created_at",
            sqlite_where=text("status = 'queued'"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_runs_retention",
            "tenant_id",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL AND events_gone_at IS NULL"),
            postgresql_where=text("finished_at IS NOT NULL AND events_gone_at IS NULL"),
        ),
        Index(
            "ix_runs_closed",
            "tenant_id",
            "finished_at",
            sqlite_where=text("events_gone_at IS NOT NULL"),
            postgresql_where=text("events_gone_at IS NOT NULL"),
        ),
    )


class EventRow(Row):
    """One event of a run: its payload is the JSON that goes over the wire, written once and sent as it is."""

    tenant_id: str
    run_id: str
    sequence: int
    event: str
    payload: str = Field(sa_type=Text)
    result: str | None = Field(default=None, sa_type=Text)
    """What a finished step returned, for replay; not for the wire."""


class EventTable(EventRow, table=True):
    """The table of it."""

    __tablename__ = "run_events"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "run_id", "sequence"),
        {"sqlite_with_rowid": False},
    )


class WorkerRow(Row):
    """A process that executes runs; alive as long as its heartbeat is younger than the lease."""

    worker_id: str
    host: str
    process_id: int = Field(sa_type=BigInteger)
    started_at: datetime = Field(sa_type=Instant)
    heartbeat_at: datetime = Field(sa_type=Instant)


class WorkerTable(WorkerRow, table=True):
    """The table of it."""

    __tablename__ = "workers"
    __table_args__ = (PrimaryKeyConstraint("worker_id"), {"sqlite_with_rowid": False})


class IdempotencyRow(Row):
    """An Idempotency-Key that was used, and the run that it stands for."""

    tenant_id: str
    key: str
    request_hash: str
    run_id: str
    created_at: datetime = Field(sa_type=Instant)


class IdempotencyTable(IdempotencyRow, table=True):
    """The table of it."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "key"),
        Index("ix_idempotency_keys_created", "created_at"),
        Index("ix_idempotency_keys_run", "tenant_id", "run_id"),
        {"sqlite_with_rowid": False},
    )


class WebhookRow(Row):
    """An address that gets events: of all runs of a tenant or a user, or of one run."""

    tenant_id: str
    webhook_id: str
    user_id: str | None = None
    """Whose runs alone it gets, and who sees it; None for all of the tenant's."""
    run_id: str | None = None
    """The one run that it was made with."""
    url: str = Field(sa_type=Text)
    events: str = Field(sa_type=Text)
    """The names of the events that it gets, as a JSON list; `*` stands for all."""
    secret: str | None = None
    """What its messages are signed by; None for its owner's, see WebhookSecretRow."""
    previous_secret: str | None = None
    previous_until: datetime | None = Field(default=None, sa_type=Instant)
    """Until when they are signed by the secret before too."""
    active: bool = True
    disabled_reason: str | None = None
    """Why it is not, where the service has turned it off."""
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class WebhookTable(WebhookRow, table=True):
    """The table of it. Those of one run go with the run."""

    __tablename__ = "webhooks"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "webhook_id"),
        ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], ondelete="CASCADE"),
        Index("ix_webhooks_run", "tenant_id", "run_id", "webhook_id"),
        Index("ix_webhooks_owner", "tenant_id", "run_id", "user_id", "webhook_id"),
        Index(
            "ix_webhooks_registered",
            "tenant_id",
            "webhook_id",
            sqlite_where=text("run_id IS NULL"),
            postgresql_where=text("run_id IS NULL"),
        ),
    )


class WebhookSecretRow(Row):
    """What the webhooks of runs are signed by that bring no secret of their own: one for the tenant, one for a user."""

    tenant_id: str
    user_id: str
    """Empty for the tenant's."""
    secret: str
    previous_secret: str | None = None
    previous_until: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)


class WebhookSecretTable(WebhookSecretRow, table=True):
    """The table of it."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "user_id"), {"sqlite_with_rowid": False})


class WebhookChangeRow(Row):
    """How often a tenant's webhooks have changed: by it, other processes see that they have."""

    tenant_id: str
    number: int = Field(sa_type=BigInteger)


class WebhookChangeTable(WebhookChangeRow, table=True):
    """The table of it."""

    __tablename__ = "webhook_changes"
    __table_args__ = (PrimaryKeyConstraint("tenant_id"), {"sqlite_with_rowid": False})


class DeliveryRow(Row):
    """An event on its way to a webhook: written with the event, tried until it has arrived or there is no hope."""

    tenant_id: str
    delivery_id: str
    """The id of the message too, the same each time that it is sent."""
    webhook_id: str
    user_id: str | None = None
    """The webhook's."""
    run_id: str
    sequence: int
    event: str
    payload: str = Field(sa_type=Text)
    """The event as it stands in the log, which retention may have removed by then."""
    host: str
    """Where the webhook led when the run was accepted; hosts get their turns one after the other."""
    status: str = "pending"
    attempts: int = 0
    """Times that it was sent, or was about to be; whoever writes the outcome compares it."""
    failures: int = 0
    """Of these, those that have failed since it was last asked for: how long the next pause is."""
    next_attempt_at: datetime | None = Field(default=None, sa_type=Instant)
    """While it is being sent: when it is taken over, if nothing is heard of it."""
    last_attempt_at: datetime | None = Field(default=None, sa_type=Instant)
    response_status: int | None = None
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=Instant)
    delivered_at: datetime | None = Field(default=None, sa_type=Instant)


class DeliveryTable(DeliveryRow, table=True):
    """The table of it. The key to the run is checked at the commit: its first event is written before the run is."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "delivery_id"),
        ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
        Index("ix_webhook_deliveries_webhook", "tenant_id", "webhook_id", "delivery_id"),
        Index("ix_webhook_deliveries_run", "tenant_id", "run_id", "delivery_id"),
        Index("ix_webhook_deliveries_created", "created_at"),
        Index(
            "ix_webhook_deliveries_due",
            "host",
            "next_attempt_at",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
    )


class ScheduleRow(Row):
    """A workflow that is started at certain times."""

    tenant_id: str
    schedule_id: str
    name: str
    workflow: str
    cron: str
    timezone: str
    input: str = Field(sa_type=Text)
    session_id: str | None = None
    """The session of all its runs; None for a new one each time."""
    user_id: str | None = None
    annotations: str = Field(default="{}", sa_type=Text)
    timeout_seconds: float | None = None
    on_missed: str = "skip"
    on_busy: str = "enqueue"
    paused_at: datetime | None = Field(default=None, sa_type=Instant)
    next_run_at: datetime | None = Field(default=None, sa_type=Instant)
    """The tick that is due next; while it is paused, the first one that it has missed. None when there is none."""
    last_run_id: str | None = None
    last_run_at: datetime | None = Field(default=None, sa_type=Instant)
    error: str | None = Field(default=None, sa_type=Text)
    """Why its last tick started no run."""
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class ScheduleTable(ScheduleRow, table=True):
    """The table of it."""

    __tablename__ = "schedules"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "schedule_id"),
        Index("ix_schedules_name", "tenant_id", "name", unique=True),
        Index(
            "ix_schedules_due",
            "next_run_at",
            sqlite_where=text("paused_at IS NULL"),
            postgresql_where=text("paused_at IS NULL"),
        ),
    )


class TickRow(Row):
    """A tick for which a run was started; there is no second run for it."""

    tenant_id: str
    schedule_id: str
    tick_at: datetime = Field(sa_type=Instant)
    run_id: str


class TickTable(TickRow, table=True):
    """The table of it."""

    __tablename__ = "schedule_ticks"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "schedule_id", "tick_at"),
        ForeignKeyConstraint(
            ["tenant_id", "schedule_id"], ["schedules.tenant_id", "schedules.schedule_id"], ondelete="CASCADE"
        ),
        {"sqlite_with_rowid": False},
    )


class ImportRow(Row):
    """A table of the seed's that was taken over on first use, so that it happens once."""

    tenant_id: str
    source: str
    imported_at: datetime = Field(sa_type=Instant)


class ImportTable(ImportRow, table=True):
    """The table of it."""

    __tablename__ = "imports"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "source"), {"sqlite_with_rowid": False})


class TenantRow(Row):
    """A tenant that has, or had, a caller: background work looks through all of them."""

    tenant_id: str


class TenantTable(TenantRow, table=True):
    """The table of it."""

    __tablename__ = "tenants"
    __table_args__ = (PrimaryKeyConstraint("tenant_id"), {"sqlite_with_rowid": False})


class KeyRow(Row):
    """An API key: what it opens, for how long, and a digest of its secret part, which nobody can turn back."""

    tenant_id: str
    key_id: str
    digest: str
    name: str
    scopes: str
    """Separated by blanks."""
    user_id: str | None = None
    """Whose alone the sessions and runs are that it sees; None for all of the tenant's."""
    created_at: datetime = Field(sa_type=Instant)
    expires_at: datetime | None = Field(default=None, sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    last_used_at: datetime | None = Field(default=None, sa_type=Instant)


class KeyTable(KeyRow, table=True):
    """The table of it."""

    __tablename__ = "api_keys"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "key_id"),
        Index("ix_api_keys_id", "key_id", unique=True),
        Index("ix_api_keys_created", "tenant_id", "created_at", "key_id"),
        {"sqlite_with_rowid": False},
    )


class RateRow(Row):
    """On Postgres, what a caller or a tenant may ask just now; see operations/rates.py. One that is missing is full."""

    tenant_id: str
    bucket: str
    """Empty for the tenant's own; else a digest of whose it is."""
    full_at: float
    """When it is full again if nobody asks any more, in seconds since 1970, by the database's clock."""
    taken: float
    """What was taken out last: a statement that changes a row can tell nothing else of how it was."""


class RateTable(RateRow, table=True):
    """The table of it."""

    __tablename__ = "request_rates"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "bucket"), {"sqlite_with_rowid": False})


class SecretRow(Row):
    """What all processes share and nobody else may know, by its name."""

    name: str
    value: str
    created_at: datetime = Field(sa_type=Instant)


class SecretTable(SecretRow, table=True):
    """The table of it."""

    __tablename__ = "secrets"
    __table_args__ = (PrimaryKeyConstraint("name"), {"sqlite_with_rowid": False})


def table_of(table: type[Row]) -> Table:
    """What statements are made of."""
    found: Table = table.__table__  # type: ignore[attr-defined]  # SQLModel sets it
    return found
