"""Statements that are compiled once and then run by the driver, as SQLAlchemy would run them anew each time.

A statement is written over the SQLModel tables like any other. What SQLAlchemy makes of it (its SQL, the order of its
parameters, the conversions of its columns) is kept, so that running it costs what the driver costs.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Dialect,
    Executable,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    func,
    select,
)

from app.workflow.encoding import encode

Convert = Callable[[Any], Any]


class _JsonList(TypeDecorator[list[Any]]):
    """Several values as one parameter of SQLite's."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002
        """To the database."""
        return encode(value).decode()


def among(column: ColumnElement[Any], name: str) -> dict[str, ColumnElement[bool]]:
    """Whether the column has one of the values of the list that is the parameter: the condition for each database."""
    listed = func.json_each(bindparam(name, type_=_JsonList())).table_valued("value")
    return {
        "sqlite": column.in_(select(listed.c.value)),
        "postgresql": column == any_(bindparam(name, type_=ARRAY(column.type))),
    }


class Compiled(NamedTuple):
    """A statement as one database's driver takes it."""

    sql: str
    constants: dict[str, Any]
    """Parameters that the statement itself brings."""
    order: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None
    """Puts the parameters into their places, where they go by place."""
    bind: tuple[tuple[str, Convert], ...]
    columns: tuple[str, ...]
    read: tuple[tuple[int, Convert], ...]
    adds_to: str | None
    """The table that an insert or an update is about which looks at no other."""

    def parameters(self, given: Mapping[str, Any]) -> Any:
        """The parameters as the driver takes them."""
        values = {**self.constants, **given}
        for name, convert in self.bind:
            values[name] = convert(values[name])
        return values if self.order is None else self.order(values)

    def record(self, row: Any) -> dict[str, Any]:
        """A row of the driver's by the names of its columns."""
        values = list(row)
        for place, convert in self.read:
            values[place] = convert(values[place])
        return dict(zip(self.columns, values, strict=True))


class Statement:
    """A statement of the store's: one text for each database, compiled when it is first run."""

    def __init__(self, on: "Executable | Mapping[str, Executable]") -> None:
        """`on` is the statement, or one for each dialect by its name."""
        self._on = on
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """As the dialect's driver takes it."""
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = _compile(self._on, dialect)
        return known


def _compile(on: "Executable | Mapping[str, Executable]", dialect: Dialect) -> Compiled:
    statement: Any = on[dialect.name] if isinstance(on, Mapping) else on
    compiled = statement.compile(dialect=dialect)
    binds = {name: parameter for parameter, name in compiled.bind_names.items()}
    returned = (
        list(statement.exported_columns) if statement.is_select or statement.returning_column_descriptions else []
    )
    bind = {name: parameter.type.bind_processor(dialect) for name, parameter in binds.items() if _converts(parameter)}
    read = [
        (place, column.type.result_processor(dialect, None))
        for place, column in enumerate(returned)
        if _converts(column)
    ]
    sql = str(compiled)
    adds = (statement.is_insert or statement.is_update) and "SELECT" not in sql
    return Compiled(
        sql=sql,
        constants={name: parameter.value for name, parameter in binds.items() if not parameter.required},
        order=None if compiled.positiontup is None else _in_order(compiled.positiontup),
        bind=tuple((name, convert) for name, convert in bind.items() if convert is not None),
        columns=tuple(column.key for column in returned),
        read=tuple((place, convert) for place, convert in read if convert is not None),
        adds_to=statement.table.name if adds else None,
    )


def _in_order(names: list[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) < 2:  # noqa: PLR2004  itemgetter gives a tuple from two names on
        return lambda values: tuple(values[name] for name in names)
    return itemgetter(*names)


def _converts(element: Any) -> bool:
    """Whether values have to be made into something else; all other types of ours are the driver's own."""
    return isinstance(element.type, TypeDecorator | Boolean)
