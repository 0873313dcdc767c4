"""The search over local documents."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.workflows.sources.articles import SourceFailed
from app.workflows.sources.documents import DocumentFolder, own_documents


def test_the_best_section_comes_first_and_can_be_read(documents: Path) -> None:
    folder = DocumentFolder(documents)
    found = folder.search("Why does sourdough rise?")
    assert [(article.title, article.url) for article in found] == [("Bread: Sourdough", "documents:bread.md#3")]
    assert found[0].summary is not None
    assert found[0].summary.startswith("Sourdough rises by wild yeast")
    assert "no heading" in (folder.read(found[0].url).content or "")


def test_more_of_the_words_weigh_more_than_more_of_one_word(documents: Path) -> None:
    (documents / "many.txt").write_text("rye " * 200, encoding="utf-8")
    found = DocumentFolder(documents).search("rye week")
    assert [article.url for article in found] == ["documents:bread.md#4", "documents:many.txt#1"]


@pytest.mark.parametrize("topic", ["xyzzy", "", "   ", "?!", '"', "xyzzy plugh yeast"])
def test_nothing_is_found(documents: Path, topic: str) -> None:
    assert DocumentFolder(documents).search(topic) == []


@pytest.mark.parametrize(
    "topic", ['"yeast', "yeast*", "yeast AND (", "NEAR(yeast", "text:yeast", "yeast' OR 1=1 --", "^yeast"]
)
def test_the_query_language_is_not_spoken(documents: Path, topic: str) -> None:
    DocumentFolder(documents).search(topic)


@given(topic=st.text(max_size=200))
def test_no_topic_breaks_the_search(topic: str) -> None:
    assert DocumentFolder(Path(__file__).parent, names=("nothing.md",)).search(topic) == []


def test_millstreams_own_documentation_is_beside_the_package_or_in_it() -> None:
    assert all(article.url.startswith("documents:") for article in own_documents().search("workflow"))


@pytest.mark.parametrize(
    "url",
    [
        "documents:../secret.md#1",
        "documents:/etc/passwd#1",
        "documents:bread.md#99",
        "documents:bread.md",
        "documents:",
        "x",
    ],
)
def test_only_what_the_search_lists_can_be_read(documents: Path, url: str) -> None:
    (documents.parent / "secret.md").write_text("# Secret\n\nsecret", encoding="utf-8")
    with pytest.raises(SourceFailed, match="search again"):
        DocumentFolder(documents).read(url)


def test_links_out_of_the_folder_other_types_and_huge_files_do_not_count(documents: Path) -> None:
    outside = documents.parent / "outside.md"
    outside.write_text("yeast", encoding="utf-8")
    (documents / "link.md").symlink_to(outside)
    (documents / "code.py").write_text("yeast", encoding="utf-8")
    (documents / "huge.txt").write_text("yeast " * 100_000, encoding="utf-8")
    assert {article.url for article in DocumentFolder(documents).search("yeast")} == {"documents:bread.md#3"}


def test_folders_below_count_and_bytes_that_are_no_text_do_no_harm(documents: Path) -> None:
    (documents / "below").mkdir()
    (documents / "below" / "cake_recipes.txt").write_bytes(b"cake \xff\xfe\x00 cake")
    found = DocumentFolder(documents).search("cake")
    assert [(article.title, article.url) for article in found] == [
        ("cake recipes", "documents:below/cake_recipes.txt#1")
    ]
