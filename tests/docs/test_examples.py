"""Every example of the documents does what its document says."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, Block, blocks_of, name_of
from tests.docs.stage import stage

EXECUTED = {"console", "python", "sh"}
SHOWN = {"html", "json", "nginx", "text", "toml"}
"""Not executed; JSON and TOML are read."""
ELSEWHERE = ("make ", "pip install ", "docker ", "pg_dump ", "pg_restore ", "millstream migrate", "export ", "git ")
"""How the commands begin that a test cannot run here: the lines of a block whose first line says `norun`."""


def runs(block: Block) -> bool:
    return block.language in EXECUTED and "norun" not in block.options


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(map(runs, blocks_of(d)))], ids=name_of)
def test_examples_do_what_the_document_says(document: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("NO CURL: the documents' examples go untested")
    with stage(tmp_path) as opened:
        for block in blocks_of(document):
            opened.put(block)  # files first: one server serves them all
        for block in filter(runs, blocks_of(document)):
            opened.perform(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_example_is_left_out_unless_it_must_be(document: Path) -> None:
    for block in blocks_of(document):
        assert block.language in EXECUTED | SHOWN, f"line {block.line}: a block of {block.language or 'nothing'}"
        if "norun" in block.options:
            for line in block.text.splitlines():
                assert line.startswith(ELSEWHERE), f"line {block.line}: {line!r} could be run; take norun away"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_data_can_be_read(document: Path) -> None:
    for block in blocks_of(document):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.node
@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if any(b.language == "html" for b in blocks_of(d))], ids=name_of
)
def test_scripts_of_pages_can_be_read(document: Path, tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("NO NODE: scripts of pages go unread")
    pages = "".join(block.text for block in blocks_of(document) if block.language == "html")
    scripts = re.findall(r"<script type=.module.>(.*?)</script>", pages, re.DOTALL)
    assert scripts
    for number, script in enumerate(scripts):
        file = tmp_path / f"{number}.mjs"
        file.write_text(script)
        checked = subprocess.run([node, "--check", file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_of_an_example_is_used(document: Path) -> None:
    blocks = blocks_of(document)
    commands = "".join(block.text for block in blocks if runs(block) and block.language == "console")
    for file in filter(None, (block.option("file") for block in blocks)):
        assert re.search(rf"\b{Path(file).stem}\b", commands), f"nothing is done with {file}"


def test_the_documents_have_examples() -> None:
    executed = [name_of(document) for document in DOCUMENTS for block in blocks_of(document) if runs(block)]
    assert len(executed) > 20
    assert {"README.md", "docs/authors.md", "docs/clients.md", "docs/operators.md"} <= set(executed)
