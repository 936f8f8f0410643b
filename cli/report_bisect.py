"""The result of a bisection, as text and as JSON."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.text import Text

from ..recorders.errors import printable
from ..replay.bisect.bisection import Bisection, Inside
from ..replay.bisect.commits import subject
from ..replay.bisect.inside import RoleChange
from ..replay.bisect.judge import Finding, JudgedCandidate
from ..replay.bisect.line import Change
from ..replay.bisect.search import Search
from ..replay.history import in_order
from ..replay.quantity import Quantity
from ..replay.spec import Origin
from ..replay.verdict import Divergence, ReplayResult
from . import report_json
from .console import Output, one_line, write_json
from .report_replay import (
    explained_by,
    first_unexplained,
    later_unexplained,
    num_unexplained,
    unexplained_row,
    where,
)

SCHEMA_VERSION = 1
STYLE = {Finding.GOOD: "green", Finding.BAD: "bold red", Finding.SKIPPED: "yellow"}


def print_table(recording: str, found: Bisection) -> None:
    console = Output()
    against = f", against {found.against}" if found.against else ""
    ends = f"  {found.good} (good) to {found.bad} (bad){against}"
    console.print(Text.assemble((recording, "bold"), ends))
    console.print()
    change = found.search.change
    if change is None or found.inside is None:
        console.print(Text(f"same: {found.num_compared} values compared, none differ", "green"))
        if found.good != found.bad:
            console.print(f"To look for changes in between: {_history(recording, found)}")
        return
    _print_tested(console, found)
    print_change(console, found.search, change, ("first changed: ", "changed again"))
    _print_inside(console, found.inside)


def _history(recording: str, found: Bisection) -> str:
    """The command to run. `history` starts with the older end, which may be the bad one."""
    oldest, newest = in_order(found.good, found.bad)
    words = ["specdiff", "history", recording, "--from", str(oldest), "--to", str(newest)]
    words += ["--repo", found.good.repo] if found.good.repo else []
    if len(found.quantities) < len(Quantity):
        words += [word for one in found.quantities for word in ("--quantity", one.value)]
    return shlex.join(words)


def _print_tested(console: Output, found: Bisection) -> None:
    table = console.table("tested", "books", "verdict", "")
    digest: str | None = None
    for one in found.search.tested:
        same = one.digest is not None and one.digest == digest
        books = "the same code" if same else (one.digest or "-")[:8]
        finding = Text(one.finding.value, STYLE[one.finding])
        table.add_row(str(one.path), books, finding, one_line(one.why or ""))
        digest = one.digest
    console.print(table)
    console.print()


def print_change(console: Output, search: Search, change: Change, words: tuple[str, str]) -> None:
    """`words`: labels for a change to bad, and for further ones."""
    what = "fixed in: " if change.shown.finding is Finding.GOOD else words[0]
    if len(change.suspects) == 1:
        console.print(Text.assemble(what, (_title(change.shown), "bold")))
    else:
        console.print(Text(f"{what}one of {len(change.suspects)}", "bold"))
        for one in change.suspects:
            console.print(f"  {_title(one)}" + (f": {one.why}" if one.why else ""))
    for other in search.others:
        back = "back to good" if other.shown.finding is Finding.GOOD else words[1]
        console.print(f"{back}: {_title(other.shown)}")
    if search.one_change:
        console.print("This assumes a single change between the ends.", style="dim")
    console.print()


def _title(one: JudgedCandidate) -> str:
    path = one.path
    if path.origin is not Origin.REVISION:
        return str(path)
    return f"{path.where} {printable(subject(Path(path.repo or '.'), path.where))}"


def _print_inside(console: Output, inside: Inside) -> None:
    result = inside.result
    console.print(f"{result.old} against {result.new}:")
    print_changed(console, result)
    quantity, first = inside.first
    console.print(f"first: {quantity.value}, {where(first)}: {first.cause}")
    later = first_unexplained(result)
    if later is not None and later != inside.first:
        quantity, first = later
        console.print(f"first unexplained: {quantity.value}, {where(first)}: {first.cause}")
    console.print()
    alone = [role for role in inside.roles if role.alone]
    for says, wanted in (
        ("Causes the difference by itself", True),
        ("Also changed, but does not cause it by itself", False),
        ("Also changed, but cannot be put into the earlier version alone", None),
    ):
        if names := [role.role.value for role in inside.roles if role.alone is wanted]:
            console.print(f"{says}: {', '.join(names)}")
    if not alone:
        console.print("No single function was found to cause the difference by itself.")
    for role in alone:
        console.print()
        for line in role.diff.rstrip("\n").split("\n"):
            console.print(Text(line, _line_style(line)))


def print_changed(console: Output, result: ReplayResult) -> None:
    """Print the quantities that differ, each with its first divergence."""
    table = console.table(
        "quantity", "compared", "differed", "first divergence", "fixes", right=(1, 2)
    )
    for one in result.quantities:
        if one.first is not None:
            counts = str(one.num_compared), str(one.num_differed)
            table.add_row(one.quantity.value, *counts, where(one.first), explained_by(one))
        if later := later_unexplained(one):
            table.add_row("", "", "", *unexplained_row(later))
    console.print(table)


def _line_style(line: str) -> str:
    if line.startswith(("---", "+++")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def print_json(recording: str, found: Bisection) -> None:
    inside = found.inside
    alone = [one.role.value for one in inside.roles if one.alone] if inside else []
    later = first_unexplained(inside.result) if inside else None
    first: dict[str, Any] | None = None
    if inside is not None:
        quantity, divergence = inside.first
        first = _named(quantity, divergence)
    report = {
        "schema_version": SCHEMA_VERSION,
        "recording": recording,
        "good": str(found.good),
        "bad": str(found.bad),
        "against": found.against,
        "quantities": [quantity.value for quantity in found.quantities],
        "compared": found.num_compared,
        **span_to_json(found.search),
        "tested": [
            {
                "path": name(one),
                "verdict": one.finding.value,
                "code_digest": one.digest,
                "why": one.why,
            }
            for one in found.search.tested
        ],
        "role": alone[0] if alone else None,
        "roles": [_role(one) for one in inside.roles] if inside else [],
        "unexplained": num_unexplained(inside.result) if inside else 0,
        "first": first,
        "first_unexplained": later and _named(*later),
    }
    write_json(report)


def _named(quantity: Quantity, divergence: Divergence) -> dict[str, Any]:
    return {"quantity": quantity.value, **report_json.divergence_to_json(divergence)}


def span_to_json(search: Search) -> dict[str, Any]:
    """Which version made the change, as far as known."""
    change = search.change
    exact = change is not None and len(change.suspects) == 1
    return {
        "first_changed": name(change.shown) if change and exact else None,
        "last_before": name(change.last) if change else None,
        "range": [name(one) for one in change.suspects] if change else [],
        "other_changes": [
            {"path": name(other.shown), "verdict": other.shown.finding.value}
            for other in search.others
        ],
        "assumes_one_change": search.one_change,
    }


def name(one: JudgedCandidate) -> str:
    """A path spec that still names this version later, when branches have moved."""
    path = one.path
    return f"sglang@{path.where}" if path.origin is Origin.REVISION else str(path)


def _role(change: RoleChange) -> dict[str, Any]:
    return {"role": change.role.value, "causes_change_alone": change.alone, "diff": change.diff}
