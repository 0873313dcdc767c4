"""Questions to the outside: what `wait_for_input` asks, and how an answer is checked."""

from itertools import islice
from typing import Any

from pydantic import TypeAdapter

from app.errors import Invalid
from app.workflow.runtime import InputRequest

MAX_ERRORS = 100
"""That an answer lists."""


def input_request(prompt: str, schema: Any, timeout_seconds: float | None) -> InputRequest:
    """The request; `schema` is None, a JSON Schema or a type. Raises Invalid for what is neither."""
    if schema is None or isinstance(schema, dict):
        if schema is not None:
            check_schema(schema)
        return InputRequest(prompt, schema, lambda value: value, timeout_seconds)
    adapter: TypeAdapter[Any] = TypeAdapter(schema)
    return InputRequest(prompt, adapter.json_schema(), adapter.validate_python, timeout_seconds)


def check_schema(schema: dict[str, Any]) -> None:
    """Raises Invalid for what is no JSON Schema."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415  most services never pause a run

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise Invalid(f"wait_for_input() got a schema that is no JSON Schema: {error.message}") from None


def check_answer(value: Any, schema: dict[str, Any]) -> None:
    """Raises Invalid, with each place in `errors`, when the value does not fit."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    found = [
        {"pointer": "/value" + "".join(f"/{part}" for part in error.absolute_path), "message": error.message}
        for error in islice(Draft202012Validator(schema).iter_errors(value), MAX_ERRORS)
    ]
    if found:
        raise Invalid(f"the value does not fit: {found[0]['message']}", code="invalid_input", errors=found)
