"""Every link of the documents leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, name_of, prose_of

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """What `#…` may name: each heading, in small letters, with dashes for blanks and without what is no word."""
    headings = HEADING.findall(prose_of(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for found in LINK.finditer(prose_of(document)):
        path, _, anchor = found["target"].partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{found['target']}: there is no {path}"
        assert not anchor or anchor in anchors(target), f"{found['target']}: there is no such heading"


def test_every_document_can_be_found_from_the_readme() -> None:
    seen, waiting = set[Path](), [DOCUMENTS[0]]
    while waiting:
        document = waiting.pop()
        if document in seen:
            continue
        seen.add(document)
        targets = (found["target"].partition("#")[0] for found in LINK.finditer(prose_of(document)))
        waiting += [
            path
            for target in targets
            if target.endswith(".md") and (path := (document.parent / target).resolve()).exists()
        ]
    assert set(DOCUMENTS) <= seen
