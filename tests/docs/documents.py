"""The documents, and the fenced blocks in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    ROOT.glob("docs/**/*.md")
)
"""All of them."""

_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[a-z]*)(?P<options>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what else its first line says, and where it begins."""

    language: str
    options: tuple[str, ...]
    text: str
    line: int

    def option(self, name: str) -> str | None:
        """The value of `name=value` in the first line."""
        return next((o.partition("=")[2] for o in self.options if o.startswith(f"{name}=")), None)


def name_of(document: Path) -> str:
    """The document as a test's name."""
    return str(document.relative_to(ROOT))


def blocks_of(document: Path) -> list[Block]:
    """The fenced blocks, in order."""
    text = document.read_text()
    return [
        Block(
            language=found["language"],
            options=tuple(found["options"].split()),
            text=found["text"],
            line=text.count("\n", 0, found.start()) + 1,
        )
        for found in _FENCE.finditer(text)
    ]


def prose_of(document: Path) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", document.read_text())
