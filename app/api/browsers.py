"""What browsers are told beside every answer: not to guess, frame, keep or pass on; and from where they may ask."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Of the page that Swagger UI runs in, which writes styles into its elements."""
NO_STORE = (b"cache-control", b"no-store")

SENT_HEADERS = ("Authorization", "If-Match", "If-None-Match", "Idempotency-Key", "Last-Event-ID", "Prefer")
READ_HEADERS = (
    "Accept-Patch", "Allow", "Content-Location", "ETag", "Link", "Location", "Preference-Applied", "Retry-After",
    "WWW-Authenticate",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class SecurityHeaders:
    """Adds them to every answer, unless it has some of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                names = {name for name, _ in headers}
                own = [header for header in (POLICY, NO_STORE) if header[0] not in names]
                message["headers"] = [*headers, *ALWAYS, *own]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def across_origins(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The application for pages of these origins too; credentials are sent by scripts, never by the browser itself."""
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=METHODS, allow_headers=SENT_HEADERS, expose_headers=READ_HEADERS
    )
