"""The licences of all locked packages, from what is installed; fails on one that is not allowed, or not known."""

import sys
from importlib.metadata import Distribution

from license_expression import (
    ExpressionError,
    LicenseExpression,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    get_spdx_licensing,
)

from scripts.locked import DEVELOPMENT, Locked, packages_of

ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0",
        "PSF-2.0", "Unlicense", "Zlib",
        # Their files stay under their licence; ours, which only import them, do not come under it.
        "LGPL-3.0-only", "MPL-1.1", "MPL-2.0",
    }
)  # fmt: skip
CLASSIFIED = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}
"""Classifiers that name one licence; "BSD License" names three."""
WORDED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "MIT License": "MIT",
    "The BSD 2-Clause License": "BSD-2-Clause",
}
"""Licences as some packages spell them, by their first line."""
READ = {"cronsim": "BSD-3-Clause"}
"""Licences of packages that say which only in the file itself."""
SPDX: Licensing = get_spdx_licensing()


def licence_of(package: Distribution) -> str | None:
    """The package's licence as an SPDX expression; None when it does not say one that we understand."""
    metadata = package.metadata
    said = (metadata.get_all("License") or [""])[0].strip().split("\n")[0].strip()
    candidates = [*metadata.get_all("License-Expression", []), said, WORDED.get(said)]
    candidates += [CLASSIFIED.get(classifier) for classifier in metadata.get_all("Classifier", [])]
    candidates.append(READ.get(metadata["Name"]))
    return next((text for text in candidates if text and _parsed(text) is not None), None)


def allowed(expression: str) -> bool:
    """Whether we may use what has this licence: of alternatives one has to be allowed, of several all."""
    parsed = _parsed(expression)
    return parsed is not None and _allowed(parsed)


def main() -> int:
    """Print the list; the number of packages that may not be used."""
    refused = 0
    for package in packages_of(DEVELOPMENT):
        licence, verdict = judge(package)
        refused += bool(verdict)
        print(f"{package.name:<40} {package.version:<14} {licence}{verdict}")  # noqa: T201
    if refused:
        print(f"{refused} packages have no licence that is allowed; see scripts/licenses.py", file=sys.stderr)  # noqa: T201
    return refused


def judge(package: Locked) -> tuple[str, str]:
    """The licence of a package, and what is wrong with it."""
    if not package.wanted_here:
        return "(not for this platform)", ""
    installed = package.installed()
    if installed is None:
        return "(unknown)", "  NOT INSTALLED in this version"
    licence = licence_of(installed)
    if licence is None:
        return "(unknown)", "  NOT SAID"
    return licence, "" if allowed(licence) else "  NOT ALLOWED"


def _parsed(text: str) -> LicenseExpression | None:
    try:
        return SPDX.parse(text, validate=True)
    except ExpressionError:
        return None


def _allowed(expression: LicenseExpression) -> bool:
    if isinstance(expression, LicenseWithExceptionSymbol):
        return _allowed(expression.license_symbol)  # an exception only allows more
    if isinstance(expression, LicenseSymbol):
        return expression.key in ALLOWED
    parts = [_allowed(part) for part in expression.args]
    return any(parts) if isinstance(expression, SPDX.OR) else bool(parts) and all(parts)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
