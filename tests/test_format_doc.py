"""docs/format.md lists every table of a recording with its columns in order. Readers of the file rely on it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from specdiff.recorders.schema import EVENT_TABLES, ROW_TABLES, VERSION, Kind, Requests

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return the text below a heading, up to the next heading."""
    return PAGE.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the tables of a section as cells."""
    for line in section(heading).splitlines():
        if line.startswith("|") and not line.startswith("|-"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def columns(cell: str) -> list[str]:
    """Return the column names in a cell, without remarks in parentheses.

    `indexer_...` is short for the five columns that also exist for `experts_`.
    """
    names = re.findall(r"`([^`]+)`", re.sub(r"\([^()]*\)", "", cell))
    if names and names[-1] == "indexer_...":
        names[-1:] = [name.replace("experts_", "indexer_") for name in names[-6:-1]]
    return names


def names(table: type) -> list[str]:
    return [field.name for field in fields(table)]


@pytest.mark.parametrize("kind", EVENT_TABLES, ids=lambda kind: kind.name)
def test_the_page_has_the_columns_of_every_event_table(kind: Kind) -> None:
    listed = {row[0]: row for row in rows("## Event tables")}
    assert listed[str(kind.value)][1] == f"`{EVENT_TABLES[kind].__name__.lower()}`"
    assert columns(listed[str(kind.value)][3]) == names(EVENT_TABLES[kind])


def test_the_page_lists_no_event_that_is_not_there() -> None:
    kinds = [row[0] for row in rows("## Event tables") if row[0].isdigit()]
    assert kinds == [str(kind.value) for kind in EVENT_TABLES]


@pytest.mark.parametrize("kind", ROW_TABLES, ids=lambda kind: kind.name)
def test_the_page_has_the_columns_of_every_row_table(kind: Kind) -> None:
    listed = {name: row[1] for row in rows("### Row tables") for name in columns(row[0])}
    assert columns(listed[f"{kind.name.lower()}_rows"]) == names(ROW_TABLES[kind])


def test_the_page_has_the_columns_of_the_requests() -> None:
    (text,) = [part for part in section("### Row tables").split("\n\n") if part.startswith("`/req")]
    assert columns(text)[1:] == names(Requests)


def test_the_page_is_that_of_this_version() -> None:
    assert PAGE.startswith(f"# The recording format, version {VERSION}\n")
    assert f'file.attrs["version"] == {VERSION}' in PAGE


def test_the_example_prints_what_the_page_says() -> None:
    code, after = PAGE.split("```python\n", 1)[1].split("```\n", 1)
    said = re.search(r"\nprints\n\n((?:    .*\n)+)", after)
    assert said is not None
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [line.strip() for line in said[1].splitlines()]
