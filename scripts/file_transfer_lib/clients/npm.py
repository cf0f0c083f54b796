"""What clients from npm have in common: where they are, and that they are there."""

import json
from pathlib import Path

JAVASCRIPT = Path(__file__).resolve().parents[2] / "webtorrent"
"""The pages and programs of this repository that use the packages, and the list of these with their versions."""
MODULES = JAVASCRIPT / "node_modules"
INSTALL = f"npm ci --ignore-scripts --prefix {JAVASCRIPT}"


def missing(package: str) -> str | None:
    """The command that installs all packages if this one is not there."""
    return None if (MODULES / package / "package.json").exists() else INSTALL


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return json.loads((MODULES / package / "package.json").read_text())["version"]
    except FileNotFoundError:
        return "not installed"
