"""What goes wrong between a client and its server.

ClientError
├── ServerUnreachable   nobody answers, or the connection broke and could not be made again
└── ServerProblem       the server has answered, with a refusal
"""

from typing import Any


class ClientError(Exception):
    """The base of both; `message` is one sentence for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ServerUnreachable(ClientError):
    """Nobody answers at `url`; `contacted` tells whether somebody did before."""

    def __init__(self, url: str, reason: str, *, contacted: bool) -> None:
        said = f"the connection to {url} is lost" if contacted else f"no server answers at {url}"
        super().__init__(f"{said}: {reason}")
        self.url = url
        self.contacted = contacted


class ServerProblem(ClientError):
    """A problem document: its HTTP status, its stable code, its detail, and its further members."""

    def __init__(self, status: int, code: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members
        self.retry_after_seconds: float | None = None
