"""Checks of a service that should be running, as its callers see it, through whatever is in between."""

from app import __version__
from app.client.client import Client
from app.client.errors import ClientError, ServerUnreachable
from app.doctor.finding import Finding, ok, warning, wrong
from app.settings import Settings
from app.wire.sessions import CreateSession
from app.wire.workflows import Version

SILENCE_SECONDS = 20.0
"""A stream without events says something after 15 s at the most; this is the time for it, and the way."""
UNBUFFERED = "x-accel-buffering"


def ask_version(client: Client, *, named: bool) -> Version | Finding:
    """What answers; a finding where nothing of ours does. `named` says that somebody claims that it is there."""
    try:
        return client.version()
    except ServerUnreachable as error:
        judge = wrong if named else warning
        return judge("service", error.message, "start it, or name its address with --url or MILLSTREAM_URL")
    except ClientError as error:
        return wrong("service", f"{client.url} is no Millstream, or something in between: {error.message}", "see --url")


def check_version(client: Client, version: Version, settings: Settings) -> Finding:
    """Whether it is the version that this is, with the same settings."""
    mode = "embedded" if settings.embedded else "distributed"
    if version.version != __version__:
        said = f"{client.url} is version {version.version}, and this is {__version__}"
        return warning("service", said, "use the same version for all processes")
    if (version.mode, version.lease_seconds) != (mode, settings.lease_seconds):
        said = f"{client.url} is {version.mode} with a lease of {version.lease_seconds:g} s, not what is set here"
        return warning("service", said, "look at it from where its settings are, or set the same here")
    return ok("service", f"{client.url} is version {version.version}, {version.mode}")


def check_readiness(client: Client) -> Finding:
    """Whether it says that it can serve."""
    try:
        checks = client.readiness()
    except ClientError as error:
        return wrong("readiness", error.message, "see the service's log")
    bad = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if bad:
        return wrong("readiness", "; ".join(bad), "see the service's log")
    return ok("readiness", f"{', '.join(checks)} are well")


def check_stream(client: Client) -> Finding:
    """Whether a stream comes as it is sent: a proxy that gathers it shows nothing of a silent one."""
    try:
        workflow = next((workflow.name for workflow in client.workflows()), None)
        if workflow is None:
            return warning("stream", "there is no workflow to try one with", "serve one")
        session = client.create_session(CreateSession(workflow=workflow, name="millstream doctor"))
        try:
            opening = client.stream_opening(session.session_id, seconds=SILENCE_SECONDS)
        finally:
            client.delete_session(session.session_id)
    except ClientError as error:
        return warning("stream", f"it could not be tried: {error.message}", "see the service's log")
    remedy = "switch buffering off for it (nginx: proxy_buffering off), and compression"
    if opening is None:
        return wrong("stream", f"nothing came within {SILENCE_SECONDS:g} s: something in between gathers it", remedy)
    if opening.headers.get("content-encoding") is not None:
        encoding = opening.headers["content-encoding"]
        return warning("stream", f"it comes encoded as {encoding}, which gathers what is small", remedy)
    return ok("stream", f"it comes as it is sent; its first sign of life took {opening.seconds:.1f} s")
