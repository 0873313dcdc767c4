"""Workflow, the class that authors derive from."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol, Self

from app.errors import ConfigurationError, Invalid
from app.workflow.direct import run_directly
from app.workflow.inputs import input_request
from app.workflow.runtime import PerRun, Runtime, StepCall

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Storage(Protocol):
    """Where a workflow that is run from a plain script keeps its session and runs."""

    def run(self, workflow: "Workflow", arguments: dict[str, Any]) -> Any:
        """Run it durably; an iterator of its responses, or what its `run()` returns."""


class Workflow:
    """Base class of workflows: define `run()`, whose signature is the input, and yield RunResponses from it.

    `run()` may be a generator, an async generator, a function or a coroutine function. The service makes a new instance
    for each run. In a plain script, `MyWorkflow(session_id=…, storage=…).run(topic=…)` runs it from there.
    """

    name: ClassVar[str | None] = None
    description: ClassVar[str | None] = None

    session_state: dict[str, Any]
    """What the runs of the session share; a plain dict, saved when `run()` ends well."""
    run_id: str | None
    session_id: str | None
    user_id: str | None
    input: dict[str, Any]
    """The arguments that the run was started with."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self:
        """Give each instance state and agents of its own, also where a subclass's __init__ calls no super()."""
        self = super().__new__(cls)
        self._set_apart()
        return self

    def _set_apart(self) -> None:
        self.session_state, self.input = {}, {}
        self.run_id = self.session_id = self.user_id = None
        self._runtime: Runtime | None = None
        for owner in type(self).__mro__:
            for name, value in vars(owner).items():
                if isinstance(value, PerRun) and name not in self.__dict__:
                    self.__dict__[name] = value.copy_for(self)

    def __init__(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_name: str | None = None,
        session_state: dict[str, Any] | None = None,
        storage: Storage | None = None,
        **options: Any,
    ) -> None:
        """For plain scripts. `session_state` gives defaults for keys that the stored state does not have.

        The seed's other options (`workflow_id`, `memory`, `debug_mode` …) are taken and have no effect.
        """
        if unknown := options.keys() - _SEED_OPTIONS:
            raise TypeError(f"{type(self).__name__}() got unknown options: {', '.join(sorted(unknown))}")
        self.session_id, self.user_id, self.session_name = session_id, user_id, session_name
        self.session_state = session_state if session_state is not None else {}
        self.storage = storage
        body: Callable[..., Any] = type(self).run
        self.__dict__["run"] = partial(self._run_from_script, body)

    def run(self, *arguments: Any, **options: Any) -> Any:
        """The author's own; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no run()")

    def step(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        name: str | None = None,
        retries: int = 0,
        backoff_seconds: float = 1.0,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Call the function once and remember its result durably; an awaitable in async code.

        A finished step is never executed again: should the run be recovered, its result comes from the log. So what
        returns is what JSON holds of it, made into the function's return annotation where there is one.
        """
        call = StepCall(
            function=function,
            arguments=arguments,
            name=name or str(getattr(function, "__name__", type(function).__name__)),
            retries=retries,
            backoff_seconds=backoff_seconds,
            timeout_seconds=timeout_seconds,
        )
        return self.runtime.step(call)

    def write_to_storage(self) -> Any:
        """Make the session state durable as it is now; an awaitable in async code, where awaiting it is optional."""
        return self.runtime.save()

    def wait_for_input(self, prompt: str, schema: Any = None, timeout_seconds: float | None = None) -> Any:
        """Pause the run until somebody answers, and return the answer; an awaitable in async code.

        `schema` is a JSON Schema, or a type that pydantic knows, which the answer is then made into. A paused run holds
        no worker and survives restarts: it goes on by replay. Raises TimeoutError when nobody answers in time.
        """
        return self.runtime.wait_for_input(input_request(prompt, schema, timeout_seconds))

    @property
    def runtime(self) -> Runtime:
        """Whoever executes this run; raises Invalid outside one."""
        if self._runtime is None:
            raise Invalid(f"{type(self).__name__} is not running; steps and saves belong into run()")
        return self._runtime

    def bind(
        self,
        runtime: Runtime,
        *,
        run_id: str,
        session_id: str,
        user_id: str | None,
        input: dict[str, Any],
        state: dict[str, Any],
    ) -> None:
        """Attach the instance to one run; called by whoever executes it."""
        self._runtime = runtime
        self.run_id, self.session_id, self.user_id = run_id, session_id, user_id
        self.input, self.session_state = input, state

    def _run_from_script(self, body: Callable[..., Any], *positional: Any, **arguments: Any) -> Any:
        if positional:
            raise TypeError(f"{type(self).__name__}.run() takes keyword arguments only, as in run(topic=…)")
        storage = getattr(self, "storage", None)
        if storage is not None:
            return storage.run(self, arguments)
        return run_directly(self, body, arguments)


def workflow_name(workflow: type[Workflow]) -> str:
    """The `name` of the class, else the class's name in kebab case; raises ConfigurationError for an unusable one."""
    name = workflow.name or _CAMEL.sub("-", workflow.__name__).lower()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,99}", name):
        raise ConfigurationError(
            f"{workflow.__name__} has the name {name!r};"
            " use 1 to 100 letters, digits, '-', '.', '_' or '~' after a letter or digit"
        )
    return name


_SEED_OPTIONS = frozenset(
    {
        "name",
        "workflow_id",
        "description",
        "memory",
        "extra_data",
        "debug_mode",
        "monitoring",
        "telemetry",
        "images",
        "videos",
        "audio",
        "workflow_session",
    }
)
