"""The packages of a lock: names, versions, hashes, and what is installed of them here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One package."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """SHA-256 of each of its files."""
    wanted_here: bool
    """Whether it is for this platform and Python."""

    def installed(self) -> Distribution | None:
        """What is installed of it here; None when it is not, or in another version."""
        try:
            found = distribution(self.name)
        except PackageNotFoundError:
            return None
        return found if found.version == self.version else None


def packages_of(lock: Path) -> list[Locked]:
    """All packages of a lock, in its order."""
    return [_package(entry) for entry in _entries(lock.read_text())]


def _entries(text: str) -> Iterator[str]:
    """Entries, their continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        entry = line.partition("#")[0].strip()
        if entry:
            yield entry


def _package(entry: str) -> Locked:
    requirement = Requirement(entry.partition("--hash")[0].strip())
    (pin,) = requirement.specifier
    wanted = requirement.marker is None or requirement.marker.evaluate()
    return Locked(requirement.name, pin.version, tuple(_HASH.findall(entry)), wanted)
