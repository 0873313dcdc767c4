"""A search over local documents, by SQLite's full-text index; needs no network and no account."""

import itertools
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.workflows.sources.articles import MAX_ARTICLE_CHARACTERS, NewsArticle, ScrapedArticle, SourceFailed

SCHEME = "documents:"
SUFFIXES = frozenset({".md", ".txt"})
MAX_FILES = 2_000
MAX_FILE_BYTES = 512 * 1024
MAX_TERMS = 12
"""Of a topic; more words than this are a text, not a question."""
SNIPPET_TOKENS = 32

_HEADING = re.compile(r"^#{1,3} +(?P<title>.+?)[ #]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_WORD = re.compile(r"\w+")
# fmt: off
_COMMON = frozenset({
    "a", "about", "all", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "how", "i",
    "in", "into", "is", "it", "its", "my", "of", "on", "or", "our", "so", "that", "the", "their", "there", "these",
    "this", "to", "was", "we", "what", "when", "where", "which", "who", "why", "will", "with", "you", "your",
})
# fmt: on
_NO_TITLE = "Untitled"


@dataclass(frozen=True, slots=True)
class Section:
    """A document's part under one heading; the URL names the file and the section's number in it."""

    url: str
    title: str
    text: str


class DocumentFolder:
    """The markdown and text files of a folder, below it too."""

    def __init__(self, root: Path, *, names: Iterable[str] = (".",)) -> None:
        """`names` are the files and folders of the root that count."""
        self._root = root.resolve()
        self._names = tuple(names)

    def search(self, topic: str, *, limit: int = 5) -> list[NewsArticle]:
        """The sections on the topic, best first: those with at least half of its words, by how many and by BM25."""
        terms = _terms(topic)
        if not terms:
            return []
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute(_TABLE)
            rows = ((section.title, section.text, section.url) for section in self._sections())
            database.executemany("INSERT INTO sections VALUES (?, ?, ?)", rows)
            return _ranked(database, terms, limit)

    def read(self, url: str) -> ScrapedArticle:
        """The section of that URL. Raises SourceFailed for one that is not, or no longer, in the folder."""
        name, _, _ = url.removeprefix(SCHEME).rpartition("#")
        # only what the search itself would list is opened, so that a URL cannot lead out of the folder
        path = next((path for path in self._files() if self._name(path) == name), None)
        section = next((section for section in self._split(path) if section.url == url), None) if path else None
        if section is None:
            raise SourceFailed(f"there is no {url}; search again")
        return ScrapedArticle(title=section.title, url=url, content=section.text[:MAX_ARTICLE_CHARACTERS])

    def _files(self) -> Iterator[Path]:
        found = (path for name in self._names for path in _below(self._root / name))
        readable = (path for path in found if path.suffix.lower() in SUFFIXES and self._holds(path))
        return itertools.islice(readable, MAX_FILES)

    def _holds(self, path: Path) -> bool:
        """A file of the folder's own, not a link out of it, and of bounded size."""
        try:
            own = path.resolve().is_relative_to(self._root) and path.is_file()
            return own and path.stat().st_size <= MAX_FILE_BYTES
        except OSError:
            return False

    def _sections(self) -> Iterator[Section]:
        for path in self._files():
            yield from self._split(path)

    def _split(self, path: Path) -> Iterator[Section]:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # gone since it was listed
            return
        title = path.stem.replace("_", " ").replace("-", " ") or _NO_TITLE
        whole = ""
        for number, (heading, text) in enumerate(_parts(lines), 1):
            whole = whole or heading
            name = heading if heading == whole else f"{whole}: {heading}"
            if text:
                yield Section(url=f"{SCHEME}{self._name(path)}#{number}", title=name or title, text=text)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def own_documents() -> DocumentFolder:
    """Millstream's own documentation: inside the package where it was shipped so, else beside it."""
    package = Path(__file__).parents[2]
    shipped = package / "documentation"
    if shipped.is_dir():
        return DocumentFolder(shipped)
    return DocumentFolder(package.parent, names=("README.md", "docs"))


def _below(path: Path) -> list[Path]:
    return sorted(path.rglob("*")) if path.is_dir() else [path]


def _parts(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Headings with the text below each; a heading inside a code block is text."""
    heading, text, fenced = "", list[str](), False
    for line in lines:
        fenced ^= bool(_FENCE.match(line))
        match = None if fenced else _HEADING.match(line)
        if match is None:
            text.append(line)
        else:
            yield heading, "\n".join(text).strip()
            heading, text = match["title"], []
    yield heading, "\n".join(text).strip()


def _terms(topic: str) -> list[str]:
    words = dict.fromkeys(word.lower() for word in _WORD.findall(topic))
    telling = [word for word in words if word not in _COMMON]
    return (telling or list(words))[:MAX_TERMS]


def _ranked(database: sqlite3.Connection, terms: list[str], limit: int) -> list[NewsArticle]:
    hits = Counter(row for term in terms for (row,) in database.execute(_ROWS, (_quoted(term),)))
    ranked = database.execute(_RANKED, (SNIPPET_TOKENS, " OR ".join(map(_quoted, terms)))).fetchall()
    enough = [row for row in ranked if 2 * hits[row[0]] >= len(terms)]
    best = sorted(enough, key=lambda row: -hits[row[0]])[:limit]  # stable: BM25 decides among equals
    return [NewsArticle(title=title, url=url, summary=" ".join(snippet.split())) for _, title, url, snippet in best]


def _quoted(term: str) -> str:
    """A string of FTS5's query language, in which nothing but the quote means anything."""
    return '"' + term.replace('"', '""') + '"'


_TABLE = "CREATE VIRTUAL TABLE sections USING fts5(title, text, url UNINDEXED, tokenize='porter unicode61')"
_ROWS = "SELECT rowid FROM sections WHERE sections MATCH ?"
_RANKED = """
    SELECT rowid, title, url, snippet(sections, 1, '', '', '…', ?)
    FROM sections WHERE sections MATCH ? ORDER BY bm25(sections, 4.0, 1.0)
"""
