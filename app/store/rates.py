"""The rows of buckets, out of which the processes on a Postgres take what their callers may ask."""

from typing import NamedTuple

from sqlalchemy import Float, bindparam, cast, delete, extract, func, literal, literal_column
from sqlalchemy.dialects.postgresql import insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import RateTable, table_of

_rates = table_of(RateTable)
# The database's own clock, so that machines need not agree on the time.
_NOW = cast(extract("epoch", func.statement_timestamp()), Float)
_WANTED = bindparam("wanted", type_=Float)
_INTERVAL = bindparam("interval", type_=Float)
"""Seconds for one request."""
_BURST = bindparam("burst", type_=Float)
_FULL_AT = func.greatest(_rates.c.full_at, _NOW)
_THERE = func.floor(_BURST - (_FULL_AT - _NOW) / _INTERVAL + literal_column("1e-6"))
_TAKEN = func.greatest(func.least(_WANTED, _THERE), literal_column("0.0"))
_new = insert(_rates)
# One statement, so that of two processes each takes what the other has left.
_TAKE = Statement(
    _new.values(
        tenant_id=bindparam("tenant"),
        bucket=bindparam("of"),
        full_at=_NOW + func.least(_WANTED, _BURST) * _INTERVAL,
        taken=func.least(_WANTED, _BURST),
    )
    .on_conflict_do_update(
        index_elements=["tenant_id", "bucket"], set_={"full_at": _FULL_AT + _TAKEN * _INTERVAL, "taken": _TAKEN}
    )
    .returning(_rates.c.taken, (_rates.c.full_at - _NOW).label("seconds"))
)
_FORGET = Statement(delete(_rates).where(_rates.c.full_at < _NOW - literal(3600.0)))


class Taken(NamedTuple):
    """How many requests were taken out of a bucket, and in how many seconds it is full again."""

    requests: int
    full_in_seconds: float


def take(transaction: Transaction, tenant: str, bucket: str, *, wanted: int, interval: float, burst: int) -> Taken:
    """Take as many as there are, up to what is wanted. One flows in each `interval` (seconds), up to `burst`.

    For Postgres alone: where there is one process, its memory will do.
    """
    parameters = {"tenant": tenant, "of": bucket, "wanted": wanted, "interval": interval, "burst": burst}
    row = transaction.one(_TAKE, parameters)
    assert row is not None  # an upsert gives its row
    return Taken(int(row["taken"]), row["seconds"])


def forget_full(transaction: Transaction) -> None:
    """Remove the buckets that nobody has taken anything out of for an hour: one that is not there is full."""
    transaction.run(_FORGET, {})
