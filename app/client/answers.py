"""What a server's answers mean: a resource, or a problem."""

from typing import Any

import httpx

from app.client.errors import ServerProblem

SHOWN_CHARACTERS = 200


def json_of(answer: httpx.Response) -> Any:
    """The body of a good answer; raises ServerProblem for any other."""
    if not answer.is_success:
        raise problem_of(answer)
    try:
        return answer.json()
    except ValueError:
        raise _unexpected(answer) from None


def problem_of(answer: httpx.Response) -> ServerProblem:
    """The refusal that an answer is, whoever has sent it."""
    try:
        document = answer.json()
        status, code, detail = document.pop("status"), document.pop("code"), document.pop("detail")
    except (ValueError, KeyError, AttributeError, TypeError):
        return _unexpected(answer)
    members = {name: value for name, value in document.items() if name not in {"type", "title"}}
    problem = ServerProblem(status, code, detail, **members)
    problem.retry_after_seconds = _seconds(answer.headers.get("Retry-After"))
    return problem


def _unexpected(answer: httpx.Response) -> ServerProblem:
    text = " ".join(answer.text.split())[:SHOWN_CHARACTERS]
    said = f" ({text})" if text else ""
    detail = f"{answer.url} answered {answer.status_code}, but not as Millstream does{said}; is it the right address?"
    problem = ServerProblem(answer.status_code, "unexpected_answer", detail)
    problem.retry_after_seconds = _seconds(answer.headers.get("Retry-After"))
    return problem


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
