"""Every error that Millstream raises on purpose; the message names the thing, the value and the remedy.

    MillstreamError
    ├── Invalid              the request or value can never be right as it stands        (HTTP 422)
    │   ├── Malformed        the bytes are no JSON, or a cursor is no cursor             (HTTP 400)
    │   ├── Unencodable      a value that no JSON document can hold; `path` says where
    │   └── InvalidEvent     a workflow yielded something that is no event
    ├── Unauthenticated      no credential, or one that is not valid here                (HTTP 401)
    ├── Forbidden            the caller may not do that                                  (HTTP 403)
    ├── NotFound             nothing has that name or id                                 (HTTP 404)
    ├── Conflict             true of the request, but not in the present state           (HTTP 409)
    ├── Gone                 it was there, retention has removed it                      (HTTP 410)
    ├── PreconditionFailed   If-Match names another revision than the present one        (HTTP 412)
    ├── PreconditionRequired a write that replaces a whole document came without If-Match (HTTP 428)
    ├── TooLarge             over a size limit                                           (HTTP 413)
    ├── UnsupportedMediaType a body type that the route does not read                    (HTTP 415)
    ├── TooMany              the caller is at one of its limits; try again            (HTTP 429)
    ├── Unavailable          not now: draining, or at a limit; try again                 (HTTP 503)
    └── ConfigurationError   the service cannot start like this
        └── DatabaseHeld     another process has the SQLite file

Overdue is a TimeoutError of the author's, no error of ours.

`code` is stable and part of the HTTP contract; `extra` holds members of the problem document beside it.
"""

from typing import Any, ClassVar


class MillstreamError(Exception):
    """The base of all; `code` is the stable name that clients may switch on."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.problem_code = code or self.code
        self.extra = extra


class Invalid(MillstreamError):
    """The request or value can never be right as it stands."""

    code = "invalid_request"


class Malformed(Invalid):
    """The bytes cannot be read at all."""

    code = "malformed_request"


class Unencodable(Invalid):
    """A value that no JSON document can hold; `path` is the JSON Pointer to it ("" is the value itself)."""

    code = "unencodable"

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message, path=path)
        self.path = path


class InvalidEvent(Invalid):
    """A workflow yielded something that cannot be an event."""

    code = "invalid_event"


class Unauthenticated(MillstreamError):
    """No credential, or one that is not valid here; which of these, nobody is told."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("a valid credential is needed here: send `Authorization: Bearer` with an API key or a token")


class Forbidden(MillstreamError):
    """The caller may not do that."""

    code = "forbidden"


class NotFound(MillstreamError):
    """Nothing has that name or id."""

    code = "not_found"


class Conflict(MillstreamError):
    """True of the request, but not in the present state."""

    code = "conflict"


class Gone(MillstreamError):
    """It was there; retention has removed it."""

    code = "gone"


class PreconditionFailed(MillstreamError):
    """If-Match names another revision than the present one."""

    code = "precondition_failed"


class PreconditionRequired(MillstreamError):
    """A write that replaces a whole document came without If-Match."""

    code = "precondition_required"


class TooLarge(MillstreamError):
    """Over a size limit."""

    code = "too_large"


class UnsupportedMediaType(MillstreamError):
    """A body type that the route does not read."""

    code = "unsupported_media_type"


class TooMany(MillstreamError):
    """The caller is at one of its limits; others are not."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: int, code: str | None = None, **extra: Any) -> None:
        super().__init__(message, code=code, **extra)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(MillstreamError):
    """Not now: the process is draining or at a limit."""

    code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after_seconds: int = 1, **extra: Any) -> None:
        super().__init__(message, code=code, **extra)
        self.retry_after_seconds = retry_after_seconds


class Overdue(TimeoutError):
    """A step or an answer took longer than its timeout allows; raised in author code, as the TimeoutError it is."""


class ConfigurationError(MillstreamError):
    """The service cannot start like this."""

    code = "configuration"


class DatabaseHeld(ConfigurationError):
    """Another process has the SQLite file."""
