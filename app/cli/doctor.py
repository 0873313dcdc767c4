"""The command that looks at a deployment and says what is wrong."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exits
from app.cli.configuration import Url, connect, load_settings

if TYPE_CHECKING:
    from app.doctor.finding import Finding

SIGNS = {"ok": "✓", "warning": "!", "wrong": "✗"}


def doctor(
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one finding a line.")] = False,
) -> None:
    """Look at settings, database, workers and service, and say what is wrong and what to do.

    With --url also whether streams come through whatever is in front of the service; that takes some seconds. Exit code
    1 says that something is wrong.
    """
    from app.doctor.examination import examine

    named = bool(url or os.environ.get("MILLSTREAM_URL"))
    wrong = 0
    for finding in examine(os.environ, load_settings, lambda: connect(url), named=named, through=url is not None):
        wrong += finding.verdict == "wrong"
        typer.echo(json.dumps(asdict(finding), ensure_ascii=False) if as_json else _line(finding))
    if wrong:
        raise typer.Exit(exits.FAILED)


def _line(finding: "Finding") -> str:
    remedy = "" if finding.remedy is None else f"; {finding.remedy}"
    return " ".join(f"{SIGNS[finding.verdict]} {finding.check}: {finding.detail}{remedy}".split())
