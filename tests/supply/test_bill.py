"""The bill of materials, and the licences of what is on it."""

import json
import re
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts import licenses, sbom
from scripts.locked import DEVELOPMENT, RUNTIME, Locked, packages_of


def test_the_bill_names_all_that_is_locked(tmp_path: Path) -> None:
    target = tmp_path / "dist" / "sbom.json"
    count = sbom.write(target)
    document = json.loads(target.read_text())
    locked = set(re.findall(r"(?m)^([a-z0-9.-]+)(?:\[.*\])?==([^ ;\\]+)", RUNTIME.read_text()))
    assert {(part["name"], part["version"]) for part in document["components"]} == locked
    assert count == len(locked) > 50
    assert all(part["hashes"] and part["purl"].startswith("pkg:pypi/") for part in document["components"])
    assert document["metadata"]["component"]["name"] == "millstream"
    elsewhere = {package.name for package in packages_of(RUNTIME) if not package.wanted_here}
    assert {part["name"] for part in document["components"] if not part.get("licenses")} <= elsewhere


def test_the_bill_is_what_its_schema_says() -> None:
    text = sbom.bill_of(packages_of(RUNTIME))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.parametrize("package", packages_of(DEVELOPMENT), ids=lambda package: package.name)
def test_every_locked_package_may_be_used(package: Locked) -> None:
    assert licenses.judge(package)[1] == ""


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("(MIT OR GPL-2.0-only) AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_what_is_allowed(expression: str, allowed: bool) -> None:
    assert licenses.allowed(expression) is allowed


def package_saying(folder: Path, *lines: str) -> Distribution:
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: a", "Version: 1", *lines]) + "\n")
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
        (["License: BSD-3-Clause"], "BSD-3-Clause"),
        (["License: MIT License", "        ", "        Copyright"], "MIT"),
        (["Classifier: License :: OSI Approved :: Apache Software License"], "Apache-2.0"),
        (["License: see the file", "Classifier: License :: OSI Approved :: BSD License"], None),
        ([], None),
    ],
)
def test_a_licence_is_found_where_packages_say_it(tmp_path: Path, said: list[str], licence: str | None) -> None:
    assert licenses.licence_of(package_saying(tmp_path / "a.dist-info", *said)) == licence


def test_what_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(licenses, "packages_of", lambda _: [Locked("not-there", "1.0", (), True)])
    assert licenses.main() == 1
    assert "NOT INSTALLED" in capsys.readouterr().out
