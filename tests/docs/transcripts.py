"""Transcripts: commands with the output that a document promises, compared with what really comes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_VARIES = re.compile(
    rf"""(?P<id>{_ID})
    | (?P<time>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z)
    | (?P<moment>\d{{4}}-\d\d-\d\d[ ]\d\d:\d\d:\d\dZ)
    | (?P<seconds>(?<="seconds":)\d+(\.\d+)?)
    | (?P<took>\b\d+(\.\d+)?[ ]m?s\b)
    | (?P<retry>(?<=retry:[ ])\d+)
    | (?P<lines>^…\n)
    | (?P<some>…)""",
    re.VERBOSE | re.MULTILINE,
)
_PATTERNS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "moment": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ",
    "seconds": r"[0-9.e-]+",
    "took": r"\d+(?:\.\d+)? m?s",
    "retry": r"\d+",
    "lines": r"(?:[^\n]*\n)*?",
    "some": r"[^\n]*?",
}


@dataclass(frozen=True)
class Command:
    """A command line, and what the document says that it prints."""

    line: str
    expected: str


def commands_of(text: str) -> Iterator[Command]:
    """The commands of a console block: `$ ` begins one, a backslash at the end of a line goes on with it."""
    lines = text.splitlines()
    while lines:
        first = lines.pop(0)
        assert first.startswith("$ "), f"a console block begins a command with '$ ': {first!r}"
        command = [first[2:]]
        while command[-1].endswith("\\"):
            command.append(lines.pop(0))
        output = []
        while lines and not lines[0].startswith("$ "):
            output.append(lines.pop(0))
        yield Command("\n".join(command), "\n".join(output))


@dataclass
class Bindings:
    """The ids that a document shows, and what they are this time."""

    ids: dict[str, str] = field(default_factory=dict)

    def fill(self, command: str) -> str:
        """A command with this time's ids."""

        def real(found: re.Match[str]) -> str:
            assert found[0] in self.ids, f"the id {found[0]} is in a command, but in no output before it"
            return self.ids[found[0]]

        return re.sub(_ID, real, command)

    def match(self, expected: str, actual: str) -> bool:
        """Whether an output is the one promised: ids stand for ids, times for times, … for anything on its line."""
        groups: dict[str, str] = {}
        pattern, end = "", 0
        text = expected.strip() + "\n"
        for found in _VARIES.finditer(text):
            pattern += re.escape(text[end : found.start()]) + self._pattern(found, groups)
            end = found.end()
        match = re.fullmatch(pattern + re.escape(text[end:]), actual.strip() + "\n")
        if match is None:
            return False
        self.ids |= {shown: match[group] for shown, group in groups.items()}
        return True

    def _pattern(self, found: re.Match[str], groups: dict[str, str]) -> str:
        kind = str(found.lastgroup)
        if kind != "id":
            return _PATTERNS[kind]
        if (known := self.ids.get(found[0])) is not None:
            return re.escape(known)
        if found[0] in groups:
            return f"(?P={groups[found[0]]})"
        groups[found[0]] = f"id{len(groups)}"
        return f"(?P<{groups[found[0]]}>{_ID})"
