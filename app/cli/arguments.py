"""A workflow's input from the command line: `--name=value` as the workflow's JSON Schema wants it."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.errors import Invalid

Schema = Mapping[str, Any]

ANYTHING: Schema = {}
TRUE, FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ORDER = ("null", "boolean", "integer", "number", "array", "object", "string")
"""Of the types that a value may have, the first that the text can be is meant: nearly everything can be a string."""


class NotThat(Exception):
    """The text cannot be a value of the schema; the message says what it should have been."""


def read_input(text: str | None) -> dict[str, Any]:
    """The JSON object of `--input`; raises Invalid."""
    if text is None:
        return {}
    return read_object(text, "--input")


def read_object(text: str, source: str) -> dict[str, Any]:
    """A JSON object from the command line; raises Invalid that names where it stands."""
    value = read_json(text, source)
    if not isinstance(value, dict):
        raise Invalid(f'{source} is {text[:60]!r}, which is JSON, but no object; write one like {{"key": 1}}')
    return value


def read_json(text: str, source: str) -> Any:
    """A JSON value from the command line; raises Invalid that names where it stands."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise Invalid(f"{source} is {text[:60]!r}, which is no JSON: {error}") from None


def read_arguments(words: Sequence[str], schema: Schema, workflow: str) -> dict[str, Any]:
    """The arguments among the words that are no options of ours; raises Invalid that names the argument and its type.

    `--name=value` or `--name value`; a name may be written with dashes; one that is given more than once is a list.
    """
    given: dict[str, list[str]] = {}
    for name, text in _pairs(words, schema, workflow):
        given.setdefault(name, []).append(text)
    return {name: _value(name, texts, schema, workflow) for name, texts in given.items()}


def check_required(input: Mapping[str, Any], schema: Schema, workflow: str) -> None:
    """Raises Invalid when an argument that has no default is missing."""
    missing = [name for name in schema.get("required", ()) if name not in input]
    if missing:
        wanted = " ".join(f"--{name}=…" for name in missing)
        raise Invalid(f"{workflow} needs {wanted}; `millstream workflows show {workflow}` tells what it takes")


def _pairs(words: Sequence[str], schema: Schema, workflow: str) -> Iterator[tuple[str, str]]:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise Invalid(f"{word!r} is no argument; write --name=value after the workflow's name")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise Invalid(f"--{name} has no value; write --{name}=value")
            text = rest.pop(0)
        yield _known(name, schema, workflow), text


def _known(name: str, schema: Schema, workflow: str) -> str:
    """The argument's own name; raises Invalid when the workflow takes none of that name."""
    properties = schema.get("properties", {})
    for candidate in (name, name.replace("-", "_")):
        if candidate in properties:
            return candidate
    if schema.get("additionalProperties", True) is False:
        takes = ", ".join(f"--{known}" for known in properties) or "none"
        raise Invalid(f"{workflow} has no argument --{name}; it takes {takes}")
    return name


def _value(name: str, texts: list[str], schema: Schema, workflow: str) -> Any:
    extra = schema.get("additionalProperties")
    wanted = schema.get("properties", {}).get(name, extra if isinstance(extra, Mapping) else ANYTHING)
    reader = _Reader(schema.get("$defs", {}))
    try:
        return reader.repeated(texts, wanted) if len(texts) > 1 else reader.read(texts[0], wanted)
    except NotThat as error:
        raise Invalid(f"--{name} of {workflow} takes {error}, not {', '.join(texts)[:100]!r}") from None


class _Reader:
    """Reads texts as values of schemas that share their definitions."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._readers: dict[str, Callable[[str, Schema], Any]] = {
            "null": _null,
            "boolean": _boolean,
            "integer": _integer,
            "number": _number,
            "array": self._array,
            "object": _object,
            "string": lambda text, _schema: text,
        }

    def read(self, text: str, schema: Schema) -> Any:
        """The value; raises NotThat."""
        choices = sorted(self._choices(schema), key=lambda choice: _ORDER.index(choice[0]))
        if not choices:
            return _anything(text)
        wanted = []
        for kind, choice in choices:
            try:
                value = self._readers[kind](text, choice)
            except NotThat as error:
                wanted.append(str(error))
                continue
            if _allowed(value, choice):
                return value
            wanted.append(f"one of {', '.join(map(str, choice['enum']))}")
        raise NotThat(" or ".join(dict.fromkeys(wanted)))

    def repeated(self, texts: list[str], schema: Schema) -> list[Any]:
        """The list that several texts are; raises NotThat when the schema wants none."""
        lists = [choice for kind, choice in self._choices(schema) if kind == "array"]
        if not lists and any(True for _ in self._choices(schema)):
            raise NotThat("one value")
        items = lists[0].get("items", ANYTHING) if lists else ANYTHING
        return [self.read(text, items) for text in texts]

    def _choices(self, schema: Schema) -> Iterator[tuple[str, Schema]]:
        """The types that a value may have, each with its schema; none when it may be anything."""
        schema = self._resolved(schema)
        for key in ("anyOf", "oneOf", "allOf"):
            for part in schema.get(key, ()):
                yield from self._choices(part)
        if "const" in schema:
            schema = {**schema, "enum": [schema["const"]]}
        kinds = schema.get("type", sorted({_kind(value) for value in schema.get("enum", ())}))
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield kind, schema

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._definitions.get(schema["$ref"].rpartition("/")[2], ANYTHING)
        return schema

    def _array(self, text: str, schema: Schema) -> Any:
        """A JSON list, or the only item of one."""
        if text.lstrip().startswith("["):
            return _parsed(text, list, "a JSON list")
        try:
            return [self.read(text, schema.get("items", ANYTHING))]
        except NotThat as error:
            raise NotThat(f"{error}, more than once or as a JSON list") from None


def _null(text: str, _schema: Schema) -> None:
    if text != "null":
        raise NotThat("null")


def _boolean(text: str, _schema: Schema) -> bool:
    word = text.lower()
    if word not in TRUE | FALSE:
        raise NotThat("true or false")
    return word in TRUE


def _integer(text: str, _schema: Schema) -> int:
    if not _INTEGER.fullmatch(text):
        raise NotThat("a whole number")
    return int(text)


def _number(text: str, _schema: Schema) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise NotThat("a number")
    return value


def _object(text: str, _schema: Schema) -> Any:
    return _parsed(text, dict, "a JSON object")


def _anything(text: str) -> Any:
    """JSON where it is JSON, else a string."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _parsed(text: str, kind: type, name: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise NotThat(name) from None
    if not isinstance(value, kind):
        raise NotThat(name)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _allowed(value: Any, schema: Schema) -> bool:
    return "enum" not in schema or value in schema["enum"]


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return kinds.get(type(value), "array" if isinstance(value, list) else "object")
