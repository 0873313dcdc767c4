"""Whether a locked package has a known advisory. It passes when every one was looked up, and none has.

pip-audit itself succeeds when it has skipped what it could not look up, and says so in a line that nobody reads.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from scripts.locked import RUNTIME, Locked, packages_of

SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Verdict:
    """How it came out; `wrong` says in sentences why it did not pass."""

    wrong: list[str]
    looked_up: int


def audit(lock: Path, *options: str) -> Verdict:
    """Look all packages of a lock up; the options are pip-audit's, which say where."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  of ours
    try:
        report = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:SHOWN_CHARACTERS]
        return Verdict([f"the advisories could not be looked up, so nothing is known about any package: {reason}"], 0)
    return judge(report, packages_of(lock))


def judge(report: dict[str, Any], packages: Sequence[Locked]) -> Verdict:
    """What pip-audit's report says of the packages, all of which it has to name."""
    entries: list[dict[str, Any]] = report.get("dependencies", [])
    wrong = [_advisory(entry, found) for entry in entries for found in entry.get("vulns", [])]
    skipped = {canonicalize_name(entry["name"]): entry.get("skip_reason") for entry in entries if "vulns" not in entry}
    seen = {(canonicalize_name(entry["name"]), entry["version"]) for entry in entries if "vulns" in entry}
    expected = {(canonicalize_name(package.name), package.version) for package in packages if package.wanted_here}
    if missing := sorted(expected - seen):
        names = ", ".join(f"{name} {version}" for name, version in missing)
        why = next((skipped[name] for name, _ in missing if skipped.get(name)), "the report does not name them")
        wrong.append(f"{len(missing)} of {len(expected)} packages were not looked up: {names} (of the first: {why})")
    return Verdict(wrong, len(expected & seen))


def main() -> int:
    """Say it, and how many are known to be well."""
    verdict = audit(RUNTIME, *sys.argv[1:])
    for sentence in verdict.wrong:
        print(sentence, file=sys.stderr)  # noqa: T201
    if not verdict.wrong:
        print(f"{verdict.looked_up} packages were looked up, and none has a known advisory")  # noqa: T201
    return int(bool(verdict.wrong))


def _advisory(entry: dict[str, Any], found: dict[str, Any]) -> str:
    fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
    return f"{entry['name']} {entry['version']} has a known advisory, {found['id']}; fixed in {fixed}"


if __name__ == "__main__":
    sys.exit(main())
