"""The history of the books over one recording, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from ..replay.history import VersionResult
from ..replay.verdict import QuantityResult
from . import report_json
from .console import Output, write_json
from .report_replay import explained_by, later_unexplained, unexplained_row, where

SCHEMA_VERSION = 1


def print_table(recording: str, found: Sequence[VersionResult]) -> None:
    console = Output()
    ends = f"{found[0].path} to {found[-1].path}"
    if found[-1].same_code and all(one.same_code for one in found[1:]):
        console.print(
            f"{recording}: same books from {ends}: {len(found)} versions with the same code"
        )
        return
    console.print(Text.assemble((recording, "bold"), f"  {ends}"))
    console.print()
    table = console.table(
        "version", "books", "quantity", "differed", "of", "first divergence", "fixes", right=(3, 4)
    )
    for version in found:
        _add(table, version)
    console.print(table)
    console.print()
    console.print(f"{len(found)} versions: {_in_all(found)}.")


def _in_all(found: Sequence[VersionResult]) -> str:
    if not any(version.compared for version in found):
        return "nothing could be compared"
    changed = sum(version.changed for version in found)
    return f"{changed} of them changed the books of this recording"


def _add(table: Any, version: VersionResult) -> None:
    """Add one row per quantity that changed, or a single row if none did, with the reason."""
    books = (version.digest or "-")[:8]
    if version.why is not None:
        table.add_row(str(version.path), books, Text(version.why, "yellow"))
    elif not version.changed:
        counts = ("0", str(version.num_compared)) if version.num_compared else ()
        table.add_row(str(version.path), books, Text(version.summary, "dim"), *counts)
    else:
        for place, one in enumerate(_changed(version)):
            lead = (str(version.path), books) if not place else ("", "")
            assert one.first is not None
            counts = str(one.num_differed), str(one.num_compared)
            table.add_row(*lead, one.quantity.value, *counts, where(one.first), explained_by(one))
            if later := later_unexplained(one):
                table.add_row("", "", "", "", "", *unexplained_row(later))


def _changed(version: VersionResult) -> list[QuantityResult]:
    return [one for one in version.result.quantities if one.first] if version.result else []


def print_json(recording: str, found: Sequence[VersionResult]) -> None:
    report = {
        "schema_version": SCHEMA_VERSION,
        "recording": recording,
        "versions": [
            {
                "path": str(version.path),
                "code_digest": version.digest,
                "summary": version.summary,
                "changed": version.changed,
                "compared": version.num_compared,
                "why_skipped": version.why,
                "quantities": {
                    one.quantity.value: report_json.quantity_to_json(one)
                    for one in _changed(version)
                },
            }
            for version in found
        ],
    }
    write_json(report)
