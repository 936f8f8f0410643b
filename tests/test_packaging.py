"""pyproject.toml lists every folder with modules, so all of them are installed."""

from __future__ import annotations

import re
from pathlib import Path

import specdiff

ROOT = Path(specdiff.__file__).parent


def test_pyproject_lists_every_package() -> None:
    """setuptools cannot find them itself, because the root folder is not named after the package."""
    (listed,) = re.findall(
        r"^packages = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("cli", "fixtures", "recorders", "replay")
        for path in (ROOT / top).rglob("*.py")
    }
    there = {".".join(("specdiff", *folder.parts)) for folder in folders}
    assert there | {"specdiff"} == set(re.findall(r'"(.+)"', listed)) - DATA


DATA = {"specdiff.fixtures.recordings"}  # holds recordings, no modules
