"""Checks of what was configured: settings, workflows, the lease, limits of the process, the model."""

import difflib
import resource
from collections.abc import Mapping

import httpx

from app.agents.errors import NoModel
from app.agents.models import ModelChoice, ModelKind, ModelSettings, choose
from app.discovery import load_registry
from app.doctor.finding import Finding, ok, warning, wrong
from app.errors import ConfigurationError
from app.settings import Settings

PREFIX = "MILLSTREAM_"
FOR_TESTS = "MILLSTREAM_TEST_"
SHORT_LEASE_SECONDS = 3.0
"""A pause of a process or its network for so long is nothing unusual."""
OTHER_DESCRIPTORS = 200
"""Files and connections of a process that are no streams: the database, models, requests."""
MODEL_SECONDS = 5.0


def check_names(environment: Mapping[str, str]) -> Finding:
    """Whether each MILLSTREAM_ variable is one of ours."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = [name for name in environment if name.startswith(PREFIX) and not name.startswith(FOR_TESTS)]
    unknown = sorted(set(given) - known)
    if not unknown:
        return ok("settings", f"{len(given)} set, all of them known and valid")
    said = [f"{name}{_meant(name, known)}" for name in unknown]
    return wrong("settings", f"there is no setting {', '.join(said)}", "correct the name, or unset the variable")


def _meant(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f" ({close[0]} is meant?)" if close else ""


def check_workflows(settings: Settings) -> Finding:
    """Whether the workflows can be imported."""
    try:
        names = sorted(definition.name for definition in load_registry(settings))
    except ConfigurationError as error:
        return wrong("workflows", error.message, "correct the module, or MILLSTREAM_WORKFLOWS")
    if not names:
        return warning("workflows", "there are none to serve", "name modules in MILLSTREAM_WORKFLOWS")
    return ok("workflows", f"{len(names)} can be imported: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}")  # noqa: PLR2004  what fits


def check_lease(settings: Settings) -> Finding:
    """Whether workers have time to be heard."""
    lease = settings.lease_seconds
    if not settings.embedded and lease < SHORT_LEASE_SECONDS:
        return warning(
            "lease",
            f"workers that are silent for {lease:g} s lose their runs, which a short pause of the network can bring",
            f"set MILLSTREAM_LEASE_SECONDS to {SHORT_LEASE_SECONDS:g} or more",
        )
    return ok("lease", f"{lease:g} s, with a heartbeat each fifth of it")


def check_descriptors(settings: Settings, soft_limit: int | None = None) -> Finding:
    """Whether a process may have as many files open as it may have streams."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if soft_limit is None else soft_limit
    needed = settings.max_streams + OTHER_DESCRIPTORS
    if limit != resource.RLIM_INFINITY and limit < needed:
        return warning(
            "descriptors",
            f"a process started from here may have {limit} files open; {settings.max_streams} streams need {needed}",
            f"raise the limit (ulimit -n {needed}, LimitNOFILE={needed}), or lower MILLSTREAM_MAX_STREAMS",
        )
    return ok("descriptors", f"a process started from here may have {limit} files open")


def check_model(settings: Settings) -> Finding:
    """Whether the default model can be asked."""
    key = settings.model_api_key
    chosen = ModelSettings(settings.model, settings.model_base_url, None if key is None else key.get_secret_value())
    try:
        choice = choose(None, chosen)
    except NoModel as error:
        configured = settings.model is not None or settings.model_base_url is not None
        judge = wrong if configured else warning
        return judge("model", str(error), "workflows without agents need none")
    if choice.kind is not ModelKind.server:
        return ok("model", f"{choice.name or choice.kind} is there; it was not asked")
    return _ask(choice)


def _ask(choice: ModelChoice) -> Finding:
    headers = {} if choice.api_key is None else {"Authorization": f"Bearer {choice.api_key}"}
    try:
        answer = httpx.get(f"{str(choice.base_url).rstrip('/')}/models", headers=headers, timeout=MODEL_SECONDS)
    except httpx.HTTPError as error:
        said = " ".join(str(error).split()) or type(error).__name__
        return wrong("model", f"{choice.base_url} does not answer: {said}", "see MILLSTREAM_MODEL_BASE_URL")
    if answer.status_code in {401, 403}:
        return wrong(
            "model", f"{choice.base_url} refuses the key ({answer.status_code})", "see MILLSTREAM_MODEL_API_KEY"
        )
    if not answer.is_success:
        return wrong("model", f"{choice.base_url} answers {answer.status_code}", "see MILLSTREAM_MODEL_BASE_URL")
    return ok("model", f"{choice.base_url} answers")
