"""The keys of JSON output, as the pages in docs/ list them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def documented_keys(page: str, heading: str) -> set[str]:
    """Return the names in the first column of the tables between a heading and the next one.

    Rows that begin with anything but a name, such as an exit code, are left out.
    """
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    first_cells = re.findall(r"^\| (`[^|]*) \|", section.split("\n#", 1)[0], re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
