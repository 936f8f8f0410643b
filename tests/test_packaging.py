"""What is installed: no folder with modules is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import specdiff

ROOT = Path(specdiff.__file__).parent


def test_every_package_is_in_the_wheel() -> None:
    """They are named one by one, as the root is no folder of that name."""
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


DATA = {"specdiff.fixtures.recordings"}  # recordings, and no module
