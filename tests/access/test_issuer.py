"""Tokens of an issuer, which answers over a socket: whose are taken, whose are not, and what its silence costs."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app import RunResponse, Workflow
from tests.support.keys import as_caller, bearer, first_key, new_key, told
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import query

AUDIENCE = "millstream"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


class Hello(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="hello")
        await asyncio.sleep(0.1)


@dataclass
class LocalIssuer:
    """An issuer of the test's own."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=lambda: {"one": RSA, "two": CURVE})
    asked: list[str] = field(default_factory=list)
    answers: bool = True
    seconds: float = 0
    """How long it takes to answer."""

    def token(
        self, claims: dict[str, Any] | None = None, *, kid: str | None = "one", key: Any = RSA, **options: Any
    ) -> str:
        """A token that it signs; a claim of None is left out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "scope": "runs:read runs:write",
        }
        chosen = {name: value for name, value in (usual | (claims or {})).items() if value is not None}
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(chosen, key, options.get("algorithm", "RS256"), headers=headers)

    def published(self) -> dict[str, Any]:
        """Its keys, as it tells them."""
        found = []
        for kid, key in self.keys.items():
            public = key.public_key()
            kind = jwt.algorithms.RSAAlgorithm if isinstance(public, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
            found.append(kind.to_jwk(public, as_dict=True) | {"kid": kid, "use": "sig"})
        return {"keys": found}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                while (await reader.readline()).strip():
                    pass
                self.asked.append(path)
                await asyncio.sleep(self.seconds)
                if not self.answers:
                    return
                known = {
                    "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
                    "/keys": self.published(),
                }
                body = json.dumps(known.get(path, {})).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def issuing() -> AsyncIterator[LocalIssuer]:
    """An issuer that listens."""
    issuer = LocalIssuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    async with issuing() as found:
        yield found


def trusting(database_url: str, issuer: LocalIssuer, **settings: Any) -> Any:
    """A server that takes its tokens."""
    return running(database_url, Hello, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, **settings)


async def status(client: Client, token: str, path: str = "/runs") -> int:
    """How a request with the token is answered."""
    return (await client.get(path, headers=bearer(token))).status_code


async def test_a_token_is_a_user_with_scopes(database_url: str, issuer: LocalIssuer) -> None:
    async with trusting(database_url, issuer) as client:
        problem_of(await client.get("/runs"), 401, "unauthenticated")
        ada, bob = as_caller(client, issuer.token()), as_caller(client, issuer.token({"sub": "bob"}))
        run = await ada.finish("hello", {"session_id": "hers"})
        assert run["user_id"] == "ada"
        problem_of(await bob.get(f"/runs/{run['run_id']}"), 404, "unknown_run")
        problem_of(await ada.get("/sessions/hers"), 403, "insufficient_scope")
        curved = issuer.token({"scope": ["sessions:read", "what:ever"]}, kid="two", key=CURVE, algorithm="ES256")
        assert await status(client, curved, "/sessions/hers") == 200
        assert await status(client, curved) == 403
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_claims_name_tenant_user_and_scopes(database_url: str, issuer: LocalIssuer) -> None:
    claims = {"oidc_tenant_claim": "org", "oidc_user_claim": "email", "oidc_scopes_claim": "permissions"}
    async with trusting(database_url, issuer, **claims, oidc_jwks_url=f"{issuer.url}/keys") as client:
        said = {"org": "acme", "email": "ada@acme.example", "permissions": ["runs:read", "runs:write", "admin"]}
        caller = as_caller(client, issuer.token(said))
        run = await caller.finish("hello")
        assert run["user_id"] == "ada@acme.example"
        assert query(database_url, "SELECT tenant_id FROM runs") == [{"tenant_id": "acme"}]
        assert {row["tenant_id"] for row in query(database_url, "SELECT tenant_id FROM tenants")} == {"acme", "default"}
        assert issuer.asked == ["/keys"]
        for missing in ({"org": None}, {"email": None}, {"org": ""}, {"org": 7}, {"email": "a\nb"}, {"org": "x" * 300}):
            assert await status(client, issuer.token(said | missing)) == 401, missing
        problem_of(await client.get("/keys?tenant=default", headers=bearer(issuer.token(said))), 403, "other_tenant")


async def test_tokens_that_are_not_right_are_refused_alike(sqlite_url: str, issuer: LocalIssuer) -> None:
    now = int(time.time())
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token()
    head, body, signature = good.split(".")
    tokens = {
        "another audience": issuer.token({"aud": "others"}),
        "no audience": issuer.token({"aud": None}),
        "another issuer": issuer.token({"iss": "https://evil.example"}),
        "no issuer": issuer.token({"iss": None}),
        "expired": issuer.token({"exp": now - 60}),
        "no end": issuer.token({"exp": None}),
        "no beginning": issuer.token({"iat": None}),
        "issued in the future": issuer.token({"iat": now + 3600}),
        "not yet": issuer.token({"nbf": now + 3600}),
        "no subject": issuer.token({"sub": None}),
        "another's signature": issuer.token(key=OTHER_RSA),
        "a signature by another algorithm": issuer.token(algorithm="RS512"),
        "the public key as a secret": signed(good, {"alg": "HS256", "kid": "one"}, public),
        "no algorithm": f"{part({'alg': 'none', 'kid': 'one'})}.{body}.",
        "no algorithm, in capitals": f"{part({'alg': 'NONE'})}.{body}.{signature}",
        "the other key's algorithm": signed(good, {"alg": "ES256", "kid": "one"}, public),
        "a key of its own": f"{part({'alg': 'RS256', 'jwk': issuer.published()['keys'][0]})}.{body}.{signature}",
        "an unknown key": issuer.token(kid="three"),
        "no key named, of two": issuer.token(kid=None),
        "a changed claim": f"{head}.{part({'sub': 'root', 'iss': issuer.url})}.{signature}",
        "cut": good[:-10],
        "two parts": f"{head}.{body}",
        "rubbish": "a.b.c",
        "far too long": "a" * 20_000,
    }
    async with trusting(sqlite_url, issuer) as client:
        assert await status(client, good) == 200
        answers = {}
        for name, token in tokens.items():
            answer = await client.get("/runs", headers=bearer(token))
            answers[name] = repr(told(answer))
        assert len(set(answers.values())) == 1, answers
        assert answers["rubbish"].startswith("(401, ")


def part(value: dict[str, Any]) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def signed(token: str, header: dict[str, Any], secret: bytes) -> str:
    """The token's claims under another header, signed with a secret."""
    said = f"{part(header)}.{token.split('.')[1]}"
    return f"{said}.{base64.urlsafe_b64encode(hmac.digest(secret, said.encode(), 'sha256')).decode().rstrip('=')}"


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(sqlite_url: str, issuer: LocalIssuer) -> None:
    async with trusting(sqlite_url, issuer, oidc_jwks_url=f"{issuer.url}/keys") as client:
        assert await status(client, issuer.token()) == 200
        flood = await asyncio.gather(*(status(client, issuer.token(kid=f"none-{number}")) for number in range(100)))
        assert set(flood) == {401}
        assert len(issuer.asked) == 1
        assert await status(client, issuer.token({"sub": "bob"})) == 200


async def test_a_new_key_of_the_issuers_is_fetched(
    sqlite_url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.issuer.COOL_DOWN_SECONDS", 0.5)
    async with trusting(sqlite_url, issuer, oidc_jwks_url=f"{issuer.url}/keys") as client:
        assert await status(client, issuer.token()) == 200
        issuer.keys = {"three": OTHER_RSA}
        await asyncio.sleep(0.6)
        assert await status(client, issuer.token(kid="three", key=OTHER_RSA)) == 200
        assert await status(client, issuer.token(kid=None, key=OTHER_RSA)) == 200
        assert await status(client, issuer.token({"sub": "bob"})) == 401, "a key that was withdrawn"


async def test_an_issuer_that_does_not_answer_is_503_and_holds_nobody_up(sqlite_url: str, issuer: LocalIssuer) -> None:
    issuer.answers, issuer.seconds = False, 0.5
    async with trusting(sqlite_url, issuer) as client:
        waiting = [
            asyncio.create_task(client.get("/runs", headers=bearer(issuer.token({"sub": f"{n}"})))) for n in range(5)
        ]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert (await client.get("/healthz")).status_code == 200
        assert time.monotonic() - began < 0.35
        for answer in await asyncio.gather(*waiting):
            problem_of(answer, 503, "issuer_unavailable")
            assert int(answer.headers["retry-after"]) > 0
        assert len(issuer.asked) == 1
        problem_of(await client.get("/runs", headers=bearer(issuer.token(algorithm="RS512"))), 401, "unauthenticated")


async def test_keys_that_are_known_serve_while_the_issuer_is_away(
    sqlite_url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.issuer.FRESH_SECONDS", 0.1)
    monkeypatch.setattr("app.operations.issuer.COOL_DOWN_SECONDS", 0.1)
    async with trusting(sqlite_url, issuer) as client:
        assert await status(client, issuer.token()) == 200
        issuer.answers = False
        await asyncio.sleep(0.3)
        assert await status(client, issuer.token({"sub": "bob"})) == 200
        monkeypatch.setattr("app.operations.issuer.STALE_SECONDS", 0.1)
        assert await status(client, issuer.token({"sub": "carol"})) == 503


async def test_keys_and_tokens_are_taken_side_by_side(database_url: str, issuer: LocalIssuer) -> None:
    async with trusting(database_url, issuer) as client:
        operator = issuer.token({"scope": "admin"})
        key = await new_key(client, operator, user_id="ada", scopes=["runs:read"])
        run = await as_caller(client, issuer.token()).finish("hello")
        assert await status(client, key["key"], f"/runs/{run['run_id']}") == 200


async def test_a_token_for_a_stream_is_no_longer_good_than_its_callers(database_url: str, issuer: LocalIssuer) -> None:
    async with trusting(database_url, issuer) as client:
        caller = as_caller(client, issuer.token({"exp": int(time.time()) + 3}))
        run_id = (await caller.finish("hello"))["run_id"]
        token = (await caller.post(f"/runs/{run_id}/stream-token")).json()["token"]
        path = f"/runs/{run_id}/events?token={token}"
        assert (await client.get(path)).status_code == 200
        async with asyncio.timeout(10):
            while (await client.get(path)).status_code == 200:
                await asyncio.sleep(0.2)


async def test_a_key_stays_good_when_the_issuer_is_taken_away(database_url: str, issuer: LocalIssuer) -> None:
    async with running(database_url, Hello) as client:
        admin = await first_key(client)
        assert await status(client, issuer.token()) == 401
        assert await status(client, admin) == 200
        assert issuer.asked == []
