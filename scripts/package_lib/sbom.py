"""List of what the program is made of (SBOM), in CycloneDX's format."""

import json
import tomllib
import uuid
from datetime import UTC, datetime
from typing import Any

from package_lib.build import REPOSITORY, Release, run

NAMESPACE = uuid.UUID("5c9a2bcb-6d0b-4a02-a8f0-5f0a1a7f0b5e")
"""Of serial numbers, which depend on commit, version and target only."""


def compiled(target: str) -> set[tuple[str, str]]:
    """Names and versions of the crates that are compiled into the program, or generate code for it."""
    flags = ["--package", "aquatic", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}"]
    lines = run("cargo", "tree", "--locked", *flags).splitlines()
    fields = (line.split() for line in lines if line)
    return {(name, version.removeprefix("v")) for name, version, *_ in fields}


def checksums() -> dict[tuple[str, str], str]:
    lock = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())
    packages = (package for package in lock["package"] if "checksum" in package)
    return {(package["name"], package["version"]): package["checksum"] for package in packages}


def reference(name: str, version: str) -> str:
    return f"pkg:cargo/{name}@{version}"


def key(package: dict[str, Any]) -> tuple[str, str]:
    return package["name"], package["version"]


def component(package: dict[str, Any], checksum: str | None) -> dict[str, Any]:
    name, version = key(package)
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(name, version),
        "name": name,
        "version": version,
    }
    if package["description"]:
        described["description"] = " ".join(package["description"].split())
    if checksum is not None:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Cargo still takes the slash for "or", which the standard does not know.
        described["licenses"] = [{"expression": " OR ".join(package["license"].replace(" / ", "/").split("/"))}]
    described["purl"] = reference(name, version)
    if package["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def make(made: Release) -> bytes:
    metadata = json.loads(
        run("cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={made.target}")
    )
    wanted, hashes = compiled(made.target), checksums()
    packages = {package["id"]: package for package in metadata["packages"]}
    chosen = {identity for identity, package in packages.items() if key(package) in wanted}

    def named(identity: str) -> str:
        return reference(*key(packages[identity]))

    def edges(node: dict[str, Any]) -> list[str]:
        kept = (each for each in node["deps"] if any(kind["kind"] is None for kind in each["dep_kinds"]))
        return sorted({named(each["pkg"]) for each in kept if each["pkg"] in chosen})

    nodes = [node for node in metadata["resolve"]["nodes"] if node["id"] in chosen]
    nodes.sort(key=lambda node: named(node["id"]))
    described = [component(package, hashes.get(key(package))) for package in (packages[node["id"]] for node in nodes)]
    program = next(each for each in described if each["name"] == "aquatic")
    described.remove(program)
    serial = uuid.uuid5(NAMESPACE, f"{made.version} {made.commit} {made.target}")
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(made.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "aquatic scripts/package"}]},
            "component": program | {"type": "application", "version": made.version},
            "properties": [
                {"name": "aquatic:commit", "value": made.commit},
                {"name": "aquatic:target", "value": made.target},
            ],
        },
        "components": described,
        "dependencies": [{"ref": named(node["id"]), "dependsOn": edges(node)} for node in nodes],
    }
    return json.dumps(document, indent=1).encode() + b"\n"
