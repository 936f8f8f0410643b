"""The result of a replay as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from ..recorders.errors import printable_id
from ..replay.contents import Contents
from ..replay.held import not_in
from ..replay.paths.fixes import FIXES
from ..replay.quantity import Quantity
from ..replay.verdict import Divergence, QuantityResult, ReplayResult, Verdict
from .console import Output
from .known_mismatches import JudgedRecording

_STYLE = {Verdict.SAME: "green", Verdict.DIFFERS: "bold red", Verdict.NO_VERDICT: "yellow"}
_NO_VERDICT = "nothing was compared"
_NO_RULE = "no built-in rule"  # the rules of the five fixes do not compute the quantity
_NO_FIX = "none of the five"
AS_OBSERVED = " To compare the server itself, use --old observed."
_MAX_LINE = 200  # characters per line of a test failure; values and warnings can have any length


def print_results(results: Sequence[JudgedRecording]) -> None:
    console = Output()
    for one in results:
        _print_result(console, one)
    if len(results) > 1:
        _print_summary(console, [(one.path, one.result) for one in results])


def failure(judged: JudgedRecording, command: str) -> str:
    """The message of a failed test: a few lines per quantity that differs. `command`: the command for the full report."""
    differ = [one for one in judged.result.quantities if one.first is not None]
    worst = min(differ, key=lambda one: one.first.event if one.first else 0)
    assert worst.first is not None
    lines = [
        _verdict(judged.result).plain + f"; first: {worst.quantity.value}, {where(worst.first)}"
    ]
    for one in differ:
        assert one.first is not None
        known = judged.excused.get(one.quantity)
        lines.append(
            f"  {one.quantity.value}: {one.num_differed} of {one.num_compared} differ, first at {where(one.first)}; "
            f"fixes: {explained_by(one)}"
        )
        lines.append(f"    known: {known.reason}" if known else f"    {one.first.cause}")
        if later := later_unexplained(one):
            lines.append(f"    first unexplained: {where(later)}: {later.cause}")
    lines += [f"  warning: {warning}" for warning in judged.result.warnings]
    claims = [said] if (said := _only_claims(judged.result)) else []
    return "\n".join([*map(_short, lines), *claims, f"Full report: {command}"])


def _short(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 3]}..."


def _print_result(console: Output, judged: JudgedRecording) -> None:
    result = judged.result
    run = result.run
    known = sum(q.num_differed for q in result.quantities if q.quantity in judged.excused)
    note = f", {known} of them known" if known else ""
    console.print(Text.assemble((str(judged.path), "bold"), "  ", _verdict(result), note))
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(
        f"sglang {run.sglang_version} (books: {run.books}), {run.spec_algorithm}, {result.num_requests} requests, "
        f"{result.num_events} events; {result.old} against {result.new}"
    )
    console.print()
    _print_quantities(console, result)
    _print_known(console, judged)
    _print_fixes(console, result)
    _print_exercised(console, result)


def _verdict(result: ReplayResult) -> Text:
    compared = sum(quantity.num_compared for quantity in result.quantities)
    differed = sum(quantity.num_differed for quantity in result.quantities)
    unexplained = num_unexplained(result)
    but = f", {unexplained} of them unexplained" if unexplained else ""
    text = (
        f"{result.verdict.value}: {differed} of {compared} values differ{but}"
        if compared
        else _NO_VERDICT
    )
    return Text(text, style=_STYLE[result.verdict])


def _print_quantities(console: Output, result: ReplayResult) -> None:
    table = console.table(
        "quantity",
        "compared",
        "differed",
        "not captured",
        "first divergence",
        "fixes",
        right=(1, 2, 3),
    )
    for quantity in result.quantities:
        if not quantity.num_compared:
            continue
        first = quantity.first
        table.add_row(
            quantity.quantity.value,
            str(quantity.num_compared),
            str(quantity.num_differed),
            str(quantity.num_not_captured),
            where(first) if first else "-",
            explained_by(quantity) if first else "",
        )
        if later := later_unexplained(quantity):
            table.add_row("", "", "", "", *unexplained_row(later))
        if quantity.num_excused:
            table.add_row(
                "",
                "",
                "",
                "",
                f"{quantity.num_excused} more: None, because no backend needs the sum (#25879)",
            )
        if quantity.contents:
            table.add_row("  row contents", *_contents(quantity.contents))
    if table.row_count:
        console.print(table)
    for reason, names in _not_compared(result).items():
        console.print(Text(f"not compared: {', '.join(names)}: {reason}", style="dim"))
    for name in result.unknown:
        console.print(Text(f"note: no stand-in for the global {name}", style="yellow"))
    if said := recorded_as(result):
        console.print(said)
    if said := _only_claims(result):
        console.print(said)
    console.print()


def _only_claims(result: ReplayResult) -> str | None:
    """Say so if raw lengths differ only by claims: releases before and after claim differently on purpose."""
    by_name = {one.quantity: one for one in result.quantities}
    raw = by_name.get(Quantity.KV_COMMITTED_LEN)
    settled = by_name.get(Quantity.KV_COMMITTED_LEN_SETTLED)
    if raw is None or settled is None or not raw.num_differed or settled.num_differed:
        return None
    if settled.num_compared != raw.num_compared:
        return None
    return (
        "kv_committed_len differs only by slots claimed for results still to come: settled, all "
        f"{settled.num_compared} lengths are the same. Some releases claim and others do not, so this alone is no error "
        "(docs/books.md#settled-lengths)."
    )


def _contents(contents: Contents) -> tuple[str, ...]:
    counts = (contents.num_compared, contents.num_differed, contents.num_not_captured)
    lacks = "some rows of a path are not in the recording" if contents.num_not_captured else ""
    return (*map(str, counts), lacks)


def _print_known(console: Output, judged: JudgedRecording) -> None:
    for quantity, entry in judged.excused.items():
        until = f" (until {entry.until})" if entry.until else ""
        console.print(Text(f"known: {quantity.value}: {entry.reason}{until}", style="yellow"))
    if judged.excused:
        console.print()


def _not_compared(result: ReplayResult) -> dict[str, list[str]]:
    """Quantities of which nothing was compared, grouped by reason."""
    found: dict[str, list[str]] = {}
    for quantity in result.quantities:
        if quantity.why_not:
            name = f"{quantity.quantity.value} ({quantity.num_not_captured})"
            found.setdefault(quantity.why_not, []).append(name)
    return found


def _print_fixes(console: Output, result: ReplayResult) -> None:
    """Print each fix with the first divergence that it explains, and the first one that no fix explains."""
    table = console.table("fix", "", "first divergence it explains", "why")
    for number, quantity, first in first_by_fix(result):
        table.add_row(
            _with(first, number), _title(number), f"{quantity.value}, {where(first)}", first.cause
        )
    if found := first_unexplained(result):
        quantity, first = found
        table.add_row(_NO_FIX, "unexplained", f"{quantity.value}, {where(first)}", first.cause)
    if table.row_count:
        console.print(table)
        console.print()


def _title(number: int) -> str:
    return next(fix.title for fix in FIXES if fix.number == number)


def first_by_fix(result: ReplayResult) -> Iterator[tuple[int, Quantity, Divergence]]:
    """For each fix, the earliest divergence that it explains alone, or else together with others."""
    for fix in FIXES:
        found = [
            (by_fix.first, quantity.quantity)
            for quantity in result.quantities
            for by_fix in quantity.by_fix
            if by_fix.number == fix.number and by_fix.first
        ]
        if found:
            first, quantity = min(
                found, key=lambda item: (_alone(item[0], fix.number), item[0].event)
            )
            yield fix.number, quantity, first


def _with(first: Divergence, number: int) -> str:
    """The fix, and the other fixes that it needs to explain this divergence."""
    needed = min((fixes for fixes in first.fixes if number in fixes), key=len)
    return " with ".join(f"#{fix}" for fix in (number, *sorted(needed - {number})))


def _alone(first: Divergence, number: int) -> int:
    return 0 if frozenset({number}) in first.fixes else 1


def where(first: Divergence) -> str:
    who = f"request {printable_id(first.rid)}" if first.rid is not None else "batch"
    return f"step {first.step}, {first.kind.words} (event {first.event}), {who}: {first.old} -> {first.new}"


def explained_by(result: QuantityResult) -> str:
    """What explains the differing values, of which there is at least one.

    While no value is unexplained, only the fixes that explain the first one are named. Otherwise the
    counts say for how many values that is true.
    """
    first, unexplained, differed = result.first, result.num_unexplained, result.num_differed
    assert first is not None
    if unexplained is None:
        return _NO_RULE
    if not first.fixes and unexplained < differed:
        others = ", ".join(f"#{by_fix.number}" for by_fix in result.by_fix)
        return f"{_NO_FIX} ({unexplained} of {differed}); the others: {others}"
    if not first.fixes or not unexplained:
        return fixes(first)
    rest = differed - unexplained - result.num_as_first
    also = f", other fixes ({rest})" if rest else ""
    return f"{fixes(first)} ({result.num_as_first} of {differed}){also}; {unexplained} unexplained"


def later_unexplained(result: QuantityResult) -> Divergence | None:
    """The first divergence that no fix explains, unless it is the first of all."""
    return result.first_unexplained if result.first and result.first.fixes else None


def unexplained_row(first: Divergence) -> tuple[str, str]:
    """The last two cells of a table row below a quantity: the divergence, and its fixes."""
    return f"first unexplained: {where(first)}", fixes(first)


def num_unexplained(result: ReplayResult) -> int:
    return sum(one.num_unexplained or 0 for one in result.quantities)


def first_unexplained(result: ReplayResult) -> tuple[Quantity, Divergence] | None:
    found = [(q.quantity, q.first_unexplained) for q in result.quantities if q.first_unexplained]
    return min(found, key=lambda item: item[1].event, default=None)


def recorded_as(result: ReplayResult) -> str | None:
    """Say which side the recorded server agrees with at the first divergences.

    Two paths can differ in a way in which this server never went wrong.
    """
    names: dict[str, list[str]] = {"old": [], "fixed": []}
    for one in result.quantities:
        if one.first is not None and one.first.recorded_as is not None:
            names[one.first.recorded_as].append(one.quantity.value)
    sides = {"old": result.old, "fixed": result.new}
    said = [
        f"{sides[side]} at the first divergence of {', '.join(of)}"
        for side, of in names.items()
        if of
    ]
    if not said:
        return None
    hint = AS_OBSERVED if names["fixed"] else ""
    return f"The recorded server agrees with {'; with '.join(said)}.{hint}"


def fixes(first: Divergence) -> str:
    if not first.fixes:
        return _NO_FIX
    return " or ".join(
        "+".join(f"#{number}" for number in sorted(minimal)) for minimal in first.fixes
    )


def _print_exercised(console: Output, result: ReplayResult) -> None:
    reached = ", ".join(f"{name} {count}" for name, count in result.exercised.items() if count)
    unheld = result.not_held
    missed = ", ".join(
        name for name, count in result.exercised.items() if not count and name not in unheld
    )
    console.print(f"exercised branches (docs/books.md#branches): {reached or 'none'}")
    console.print(f"never reached: {missed or 'none'}", style="dim")
    if unheld:
        console.print(f"{not_in(result.version)}: {', '.join(unheld)}", style="dim")
    console.print()


def _print_summary(console: Output, results: Sequence[tuple[Path, ReplayResult]]) -> None:
    numbers = [fix.number for fix in FIXES]
    unexplained = [num_unexplained(result) for _, result in results]
    headers = [*(f"#{number}" for number in numbers), *(["unexplained"] * any(unexplained))]
    table = console.table(
        "recording",
        "sglang",
        "verdict",
        *headers,
        right=tuple(range(3, 3 + len(headers))),
    )
    # wrap a name rather than truncate a count
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for (path, result), unknown in zip(results, unexplained, strict=True):
        counts = [str(_num_explained(result, number)) for number in numbers]
        counts += [str(unknown)] * any(unexplained)
        table.add_row(path.name, result.run.sglang_version, result.verdict.value, *counts)
    console.print(table)
    none = " Unexplained: those that no set of fixes explains." if any(unexplained) else ""
    if all(result.verdict is not Verdict.DIFFERS for _, result in results):
        return
    console.print(f"Counts: differing values that the fix explains, alone or with others.{none}")
    console.print()
    named = console.table("fix", "", "shown first in", "at", "why")
    for number in numbers:
        if found := _shown(results, number):
            path, quantity, first = found
            named.add_row(
                _with(first, number),
                _title(number),
                path.name,
                f"{quantity.value}, {where(first)}",
                first.cause,
            )
    if named.row_count:
        console.print(named)


def _num_explained(result: ReplayResult, number: int) -> int:
    explained = (by_fix for quantity in result.quantities for by_fix in quantity.by_fix)
    return sum(by_fix.num_differed for by_fix in explained if by_fix.number == number)


def _shown(
    results: Sequence[tuple[Path, ReplayResult]], number: int
) -> tuple[Path, Quantity, Divergence] | None:
    """The first recording in which the fix explains a divergence alone, or else together with others."""
    found = [
        (path, quantity, first)
        for path, result in results
        for fix, quantity, first in first_by_fix(result)
        if fix == number
    ]
    return min(found, key=lambda item: _alone(item[2], number), default=None)
