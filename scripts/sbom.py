"""The bill of materials of the image: every package of the lock, as CycloneDX in dist/sbom.json."""

import sys
import tomllib
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.licenses import licence_of
from scripts.locked import ROOT, RUNTIME, Locked, packages_of

TARGET = ROOT / "dist" / "sbom.json"


def bill_of(packages: list[Locked]) -> str:
    """The document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bill = Bom()
    ours = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=project["name"],
        licenses=[LicenseExpression(project["license"])],
    )
    bill.metadata.component = ours
    components = [_component(package) for package in packages]
    for component in components:
        bill.components.add(component)
    bill.register_dependency(ours, components)
    text: str = JsonV1Dot6(bill).output_as_string(indent=1)
    return text


def write(target: Path) -> int:
    """Write it; how many packages it names."""
    packages = packages_of(RUNTIME)
    target.parent.mkdir(exist_ok=True)
    target.write_text(bill_of(packages) + "\n")
    return len(packages)


def _component(package: Locked) -> Component:
    address = PackageURL("pypi", name=package.name, version=package.version)
    installed = package.installed()
    licence = None if installed is None else licence_of(installed)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=address,
        bom_ref=str(address),
        licenses=[] if licence is None else [LicenseExpression(licence)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in package.hashes],
    )


if __name__ == "__main__":
    print(f"{TARGET.relative_to(ROOT)} names {write(TARGET)} packages")  # noqa: T201
    sys.exit(0)
