"""Tokens of an OpenID Connect issuer: JWTs whose signatures are checked with the keys that it publishes."""

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from typing import Any, NamedTuple

import httpx
import jwt

from app.errors import Unauthenticated, Unavailable
from app.operations.caller import Caller
from app.settings import Settings
from app.store.tables import DEFAULT_TENANT
from app.wire.keys import SCOPES

logger = logging.getLogger(__name__)

REQUIRED = ["exp", "iat", "sub", "iss", "aud"]
LEEWAY_SECONDS = 5.0
"""How far the issuer's clock may be from ours."""
FETCH_SECONDS = 5.0
"""How long the issuer may take to tell its keys, all in all."""
COOL_DOWN_SECONDS = 10.0
"""Between two questions for its keys, whatever tokens name."""
FRESH_SECONDS = 600.0
"""After which the keys are asked for again: the issuer may have withdrawn one."""
STALE_SECONDS = 86_400.0
"""How long the last keys serve while the issuer does not answer."""
MAX_ANSWER_BYTES = 512 * 1024
MAX_TOKEN_CHARACTERS = 16 * 1024
TRUSTED_SECONDS = 30.0
"""How long a token that was checked is not checked again."""
MAX_TRUSTED = 10_000
MAX_NAME_CHARACTERS = 255


class _Trusted(NamedTuple):
    """Whose token it was, and until when that is taken for granted."""

    caller: Caller
    until: float


class Issuer:
    """The issuer of the settings."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        self._name, self._audience = settings.oidc_issuer, settings.oidc_audience
        self._algorithms: list[str] = list(settings.oidc_algorithms)
        self._tenant_claim, self._user_claim = settings.oidc_tenant_claim, settings.oidc_user_claim
        self._scopes_claim = settings.oidc_scopes_claim
        self._keys = _PublishedKeys(self._name, settings.oidc_jwks_url)
        self._trusted: OrderedDict[bytes, _Trusted] = OrderedDict()

    async def caller(self, token: str) -> Caller:
        """Whose token it is; raises Unauthenticated, and Unavailable when the issuer's keys are not to be had."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthenticated
        fingerprint = hashlib.sha256(token.encode()).digest()
        trusted = self._trusted.get(fingerprint)
        if trusted is not None and time.time() < trusted.until:
            return trusted.caller
        caller = self._read(await self._claims(token))
        assert caller.expires_at is not None  # a token without an end is not taken
        self._trusted[fingerprint] = _Trusted(caller, min(caller.expires_at, time.time() + TRUSTED_SECONDS))
        while len(self._trusted) > MAX_TRUSTED:
            self._trusted.popitem(last=False)
        return caller

    async def close(self) -> None:
        """Close the connections."""
        await self._keys.close()

    async def _claims(self, token: str) -> dict[str, Any]:
        """What a token says whose signature, issuer, audience and times are right."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated from None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise Unauthenticated
        published = await self._keys.find(header.get("kid"))
        if published is None or published.get("alg", algorithm) != algorithm or published.get("use", "sig") != "sig":
            raise Unauthenticated
        try:
            return jwt.decode(
                token,
                jwt.PyJWK(published, algorithm),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._name,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED, "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            logger.debug("token_refused", extra={"reason": type(error).__name__})
            raise Unauthenticated from None

    def _read(self, claims: dict[str, Any]) -> Caller:
        """The caller that the claims name; a claim of ours that is missing is not guessed."""
        user_id = _name(claims.get(self._user_claim))
        tenant = DEFAULT_TENANT if self._tenant_claim is None else _name(claims.get(self._tenant_claim))
        given = claims.get(self._scopes_claim, "")
        if user_id is None or tenant is None:
            raise Unauthenticated
        scopes = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        return Caller(
            tenant=tenant,
            name=user_id,
            user_id=user_id,
            scopes=frozenset(scope for scope in SCOPES if scope in scopes),
            source="token",
            expires_at=float(claims["exp"]),
        )


def _name(claim: Any) -> str | None:
    """A claim that can be a name of ours, else None."""
    good = isinstance(claim, str) and 0 < len(claim) <= MAX_NAME_CHARACTERS and claim.isprintable()
    return claim if good else None


class _PublishedKeys:
    """The issuer's keys, by their ids: fetched when they are needed, seldom, and without holding up anybody else."""

    def __init__(self, issuer: str, url: str | None) -> None:
        self._issuer, self._url = issuer, url
        self._keys: dict[str | None, dict[str, Any]] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()
        self._http: httpx.AsyncClient | None = None

    async def find(self, kid: object) -> dict[str, Any] | None:
        """The key of an id, or the only one there is for a token that names none; None when there is none.

        Raises Unavailable when the issuer has never answered, or not for very long.
        """
        if self._lookup(kid) is None or self._age() > FRESH_SECONDS:
            await self._refresh()
        if self._age() > STALE_SECONDS:
            raise Unavailable(
                "the issuer of tokens does not tell its keys; try again",
                code="issuer_unavailable",
                retry_after_seconds=5,
            )
        return self._lookup(kid)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    def _lookup(self, kid: object) -> dict[str, Any] | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid) if isinstance(kid, str) else None

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else time.monotonic() - self._fetched_at

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was just tried; an issuer that does not answer leaves them as they are."""
        async with self._fetching:
            now = time.monotonic()
            if self._tried_at is not None and now - self._tried_at < COOL_DOWN_SECONDS:
                return
            self._tried_at = now
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    self._keys = await self._fetch()
                self._fetched_at = now
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, TimeoutError) as error:
                logger.warning(
                    "issuer_keys_not_fetched",
                    extra={"issuer": self._issuer, "reason": f"{type(error).__name__}: {error}"},
                )

    async def _fetch(self) -> dict[str | None, dict[str, Any]]:
        url = self._url
        if url is None:
            about = await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if about["issuer"] != self._issuer:
                raise ValueError(f"it calls itself {about['issuer']!r}")
            url = str(about["jwks_uri"])
        found = (await self._get(url))["keys"]
        return {key.get("kid"): key for key in found if isinstance(key, dict)}

    async def _get(self, url: str) -> dict[str, Any]:
        """The JSON object at an address, which is not followed elsewhere."""
        self._http = self._http or httpx.AsyncClient(timeout=FETCH_SECONDS)
        body = b""
        async with self._http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"{url} answered {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError(f"{url} answers with more than {MAX_ANSWER_BYTES} bytes")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise TypeError(f"{url} has no JSON object")
        return document
