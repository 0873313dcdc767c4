"""A small disk of a test's own, to be filled."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Disk:
    """A file system of a few megabytes."""

    folder: Path

    def fill(self, *, leaving: int = 0) -> None:
        """Leave so many bytes of room, about, or not one."""
        size = 64 * 1024
        with self._ballast.open("ab", buffering=0) as file:
            while size and shutil.disk_usage(self.folder).free >= leaving:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Give back what filled it."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Disk]:
    """A disk mounted in the folder; skips, loudly, where it may not be."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "millstream-test"]
    mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NO MOUNT: {mounted.stderr.strip()}; run the tests as root, else a full disk goes untested")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
