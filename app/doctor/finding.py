"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it is."""

    ok = "ok"
    warning = "warning"
    """It works, and may not under load, in a crash or for others."""
    wrong = "wrong"
    """It does not work, or will lose something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for an operator."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str | None = None


def ok(check: str, detail: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Verdict.ok, detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """It should be otherwise."""
    return Finding(check, Verdict.warning, detail, remedy)


def wrong(check: str, detail: str, remedy: str) -> Finding:
    """It has to be otherwise."""
    return Finding(check, Verdict.wrong, detail, remedy)
