"""What a workflow's `run()` takes: its signature as an input schema, and the check of an input against it."""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticInvalidForJsonSchema,
    PydanticUserError,
    ValidationError,
    create_model,
)

from app.errors import ConfigurationError, Invalid
from app.workflow.encoding import decode, encode

MAX_ERRORS = 100
"""That an answer lists."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of `run()`; `annotation` is its text, `default` its JSON value (None when required)."""

    name: str
    annotation: str
    default: Any
    required: bool


class InputSchema:
    """The arguments of one `run()`."""

    def __init__(self, run: Callable[..., Any], owner: str) -> None:
        self._owner = owner
        self._signature = inspect.Signature(list(inspect.signature(run).parameters.values())[1:])
        self._model = self._make_model(run)
        self.parameters = [self._describe(parameter) for parameter in self._named()]
        try:
            self.json_schema = self._model.model_json_schema()
        except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
            raise ConfigurationError(f"{owner}.run() has an argument that JSON cannot carry: {error}") from None

    def validate(self, input: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments for `run()`, as its annotations want them; only those given.

        Raises Invalid with one entry in `errors` for each missing, unknown or mistyped argument.
        """
        try:
            model = self._model.model_validate_json(encode(input), strict=True)
        except ValidationError as error:
            raise self._explain(error) from None
        names = {field.alias or name: name for name, field in self._model.model_fields.items()}
        given = {name: getattr(model, names[name]) for name in input if name in names}
        return given | (model.model_extra or {})

    def _make_model(self, run: Callable[..., Any]) -> type[BaseModel]:
        try:
            hints = typing.get_type_hints(run, include_extras=True)
        except Exception as error:
            raise ConfigurationError(
                f"{self._owner}.run() has an annotation that cannot be resolved: {error}"
            ) from None
        fields: dict[str, Any] = {}
        for number, parameter in enumerate(self._named()):
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise ConfigurationError(
                    f"{self._owner}.run() takes {parameter.name!r} by position only; arguments have names"
                )
            fields[f"argument_{number}"] = (hints.get(parameter.name, Any), _field(parameter))
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            raise ConfigurationError(f"{self._owner}.run() takes *arguments; give each a name")
        extra: Any = "allow" if inspect.Parameter.VAR_KEYWORD in kinds else "forbid"
        config = ConfigDict(extra=extra, arbitrary_types_allowed=False, title=f"{self._owner}Input")
        try:
            return create_model(f"{self._owner}Input", __config__=config, **fields)
        except PydanticUserError as error:
            raise ConfigurationError(
                f"{self._owner}.run() has an argument of a type that no JSON describes: {error}"
            ) from None

    def _named(self) -> list[inspect.Parameter]:
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [parameter for parameter in self._signature.parameters.values() if parameter.kind not in variadic]

    def _describe(self, parameter: inspect.Parameter) -> Parameter:
        required = parameter.default is parameter.empty
        annotation = "Any" if parameter.annotation is parameter.empty else _text(parameter.annotation)
        default = None if required else decode(encode(parameter.default))
        return Parameter(name=parameter.name, annotation=annotation, default=default, required=required)

    def _explain(self, error: ValidationError) -> Invalid:
        if (count := error.error_count()) > MAX_ERRORS:
            raise Invalid(
                f"the input does not fit {self._owner}: {count} values of it are wrong, too many to be listed",
                code="invalid_input",
                errors=[{"pointer": "/input", "message": f"{count} values are wrong"}],
            )
        problems = [
            {"pointer": "/input" + "".join(f"/{part}" for part in found["loc"]), "message": _message(found)}
            for found in error.errors(include_url=False, include_context=False)
        ]
        first = f"{problems[0]['pointer'].removeprefix('/input/')}: {problems[0]['message']}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Invalid(f"the input does not fit {self._owner}: {first}{more}", code="invalid_input", errors=problems)


def _field(parameter: inspect.Parameter) -> Any:
    default = ... if parameter.default is parameter.empty else parameter.default
    return Field(default, alias=parameter.name)


def _message(found: Any) -> str:
    kinds = {"missing": "this argument is required", "extra_forbidden": "there is no such argument"}
    return str(kinds.get(found["type"], found["msg"]))


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
