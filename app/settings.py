"""The settings: read once from MILLSTREAM_… variables at the roof, handed down from there, never changed."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

KIBIBYTE = 1024

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures whose key to check them is public: with a shared one, whoever checks could also sign."""

_ORIGIN = re.compile(r"https?://[^/?#@\s*,]+")


class Settings(BaseSettings):
    """All of them, with their units; each is the environment variable MILLSTREAM_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: str = Field(
        "sqlite:///millstream.db", description="Where everything is kept; its scheme picks the mode."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    url: str | None = Field(
        None, description="The server that the command line talks to; by default the one of host and port."
    )
    api_key: SecretStr | None = Field(None, description="The API key that the command line sends.")

    workflows: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules, or module:Class, separated by commas, whose workflows are served."
    )
    shipped_workflows: bool = Field(True, description="Whether the workflows that come with Millstream are served too.")

    lease_seconds: float = Field(
        10, gt=0, description="How long a worker may be silent before its runs go on elsewhere."
    )
    drain_seconds: float = Field(20, ge=0, description="How long a stopping process lets its runs end.")
    cancel_grace_seconds: float = Field(5, ge=0, description="How long cancelled author code may take to stop.")
    max_live_runs: int = Field(20_000, ge=1, description="Runs that one process executes at a time.")
    author_threads: int = Field(128, ge=1, description="Runs of sync code that one process executes at a time.")

    max_body_bytes: int = Field(KIBIBYTE * KIBIBYTE, ge=KIBIBYTE, description="Size of a request body.")
    max_state_bytes: int = Field(KIBIBYTE * KIBIBYTE, ge=2, description="Size of a session's state, as compact JSON.")
    max_content_bytes: int = Field(256 * KIBIBYTE, ge=1, description="Size of the content that a run's resource shows.")
    state_cache_bytes: int = Field(
        64 * KIBIBYTE * KIBIBYTE, ge=0, description="Memory for the states of live sessions."
    )

    max_connections: int = Field(
        12_000, ge=1, description="Connections that one process keeps open; fewer where the system allows fewer files."
    )
    request_seconds: float = Field(30, gt=0, description="How long a request may take to arrive, its body included.")
    max_streams: int = Field(10_000, ge=1, description="Event streams that one process keeps open at a time.")
    ping_seconds: float = Field(15, gt=0, le=15, description="Time between two comments on a stream without events.")
    send_timeout_seconds: float = Field(
        20, gt=0, description="How long a reader may take nothing before it is dropped."
    )
    idempotency_hours: float = Field(24, gt=0, description="How long an Idempotency-Key is remembered.")
    event_retention_days: float | None = Field(
        None, gt=0, le=36_500, description="How long the events of an ended run are kept; for ever by default."
    )

    limit_requests_per_second: float | None = Field(
        None, gt=0, le=1_000_000, description="Requests of one key, or of one user known by a token."
    )
    limit_requests_burst: int = Field(20, ge=1, le=1_000_000, description="How many of them may come at once.")
    limit_tenant_requests_per_second: float | None = Field(
        None, gt=0, le=1_000_000, description="Requests of all callers of a tenant."
    )
    limit_tenant_requests_burst: int = Field(100, ge=1, le=1_000_000, description="How many of them may come at once.")
    max_streams_per_key: int | None = Field(
        None, ge=1, description="Event streams that one process keeps open for one key, or one user known by a token."
    )
    max_streams_per_tenant: int | None = Field(
        None, ge=1, description="Event streams that one process keeps open for a tenant."
    )
    max_queued_runs_per_tenant: int | None = Field(
        None, ge=1, le=100_000, description="Runs of a tenant that may wait at a time."
    )
    max_queued_runs_per_session: int | None = Field(
        None, ge=1, description="Runs that may wait for a session's turn at a time."
    )
    max_run_seconds: float | None = Field(
        None, gt=0, le=31_536_000, description="How long a run may execute, also where its request names no time."
    )
    max_events_per_run: int | None = Field(None, ge=1, description="Events that a run's code may cause.")
    max_event_bytes_per_run: int | None = Field(
        None, ge=1, description="Size of all that a run's code says and its steps return, as JSON."
    )
    max_event_bytes: int | None = Field(
        None, ge=1, description="Size of one event, or of what one step returns, as JSON."
    )

    schedule_grace_seconds: float = Field(
        60, gt=0, le=86_400, description="How late a schedule's tick may be before it counts as missed."
    )
    webhook_allow_http: bool = Field(False, description="Whether webhooks may have http addresses.")
    webhook_allow_private: bool = Field(False, description="Whether webhooks may lead to private addresses.")
    webhook_timeout_seconds: float = Field(
        15, gt=0, le=300, description="How long a webhook's receiver may take to answer."
    )
    webhook_retry_seconds: Annotated[tuple[float, ...], NoDecode] = Field(
        (5, 30, 120, 600, 3600, 14_400, 28_800, 43_200),
        description="Pauses before a webhook's message is sent again, separated by commas.",
    )
    oidc_issuer: str | None = Field(None, description="Whose tokens are taken beside API keys.")
    oidc_audience: str | None = Field(None, description="Whom the tokens have to be for.")
    oidc_algorithms: Annotated[tuple[Algorithm, ...], NoDecode] = Field(
        ("RS256", "ES256"), min_length=1, description="Algorithms of signatures, separated by commas."
    )
    oidc_jwks_url: str | None = Field(None, description="Where the issuer's keys are; by default it is asked.")
    oidc_tenant_claim: str | None = Field(
        None, description="The claim that names the tenant; without it all are of the tenant `default`."
    )
    oidc_user_claim: str = Field("sub", description="The claim that names the user.")
    oidc_scopes_claim: str = Field("scope", description="The claim that has the scopes.")
    stream_token_seconds: int = Field(
        60, ge=5, le=3600, description="How long a stream token opens a stream, and opens it again."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, separated by commas, whose pages may use the service from a browser."
    )
    docs: bool = Field(True, description="Whether /docs and /openapi.json are served.")

    run_retention_days: float | None = Field(
        None, gt=0, le=36_500, description="How long an ended run is kept, with its events; for ever by default."
    )
    revision_retention_days: float | None = Field(
        None, gt=0, le=36_500, description="How long the history of a state is kept; for ever by default."
    )
    delivery_retention_days: float | None = Field(
        None, gt=0, le=36_500, description="How long deliveries are kept that have arrived or were given up."
    )

    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least severe log line."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or for programs.")
    access_log: bool = Field(False, description="Whether every request is a line of the log.")

    model: str | None = Field(
        None, description="Default model: local, test, any pydantic-ai name, or a name at the base URL."
    )
    model_base_url: str | None = Field(None, description="An OpenAI-compatible server for the default model.")
    model_api_key: SecretStr | None = Field(None, description="The key for that server.")
    search: Literal["documents", "web"] = Field("documents", description="Where the blog post generator searches.")
    documents: Path | None = Field(
        None, description="Folder that is searched; by default Millstream's own documentation."
    )
    allow_private_addresses: bool = Field(False, description="Whether workflows may fetch from private addresses.")

    @field_validator("workflows", "oidc_algorithms", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("webhook_retry_seconds", mode="before")
    @classmethod
    def _split_seconds(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if (
            value is None
            or value.startswith("https://")
            or urlsplit(value).hostname in {"127.0.0.1", "::1", "localhost"}
        ):
            return value
        raise ValueError("it begins with https://; plain http is for this machine's loopback alone")

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; one looks like https://app.example.com, without a path")
        return value

    @model_validator(mode="after")
    def _check_audience(self) -> Self:
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise ValueError(
                "MILLSTREAM_OIDC_ISSUER needs MILLSTREAM_OIDC_AUDIENCE: a token for others is not for here"
            )
        return self

    @property
    def embedded(self) -> bool:
        """Whether the database is a SQLite file of this one process."""
        return self.database_url.startswith("sqlite:")
