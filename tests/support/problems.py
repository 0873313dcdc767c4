"""What every error answer has to be."""

from typing import Any

import httpx


def problem_of(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, which must be one (RFC 9457) of this status and code."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json", answer.text[:500]
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert all(isinstance(document[member], str) and document[member] for member in ("type", "title", "detail", "code"))
    assert "Traceback" not in answer.text
    if code is not None:
        assert document["code"] == code, document
    return document
