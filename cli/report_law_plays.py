"""Whether a law holds as versions of sglang play a scenario, as text and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from ..replay.bisect.by_law import LawBisection
from ..replay.bisect.judge import Finding, JudgedCandidate
from ..replay.bisect.line import Change
from ..replay.laws.law import Law
from ..replay.spec import Origin
from .console import Output, one_line, write_json
from .report_bisect import STYLE, name, print_change, span_to_json
from .report_breaches import breach_to_json
from .report_check import in_words

SCHEMA_VERSION = 1


def print_bisection(recording: str, found: LawBisection) -> None:
    console = Output()
    _print_head(console, recording, f"{found.good} (good) to {found.bad} (bad)", found.law)
    _print_plays(console, found.search.tested, lambda one: one.finding.value)
    change = found.search.change
    if change is None:
        console.print(Text("same: the law holds at both ends", "green"))
        return
    print_change(console, found.search, change, ("first broken in: ", "broken again in"))
    if found.good.origin is Origin.RELEASE and len(change.suspects) == 1:
        console.print(
            f"To find the commit: {_by_commit(recording, found.law, change)}", style="dim"
        )


def _by_commit(recording: str, law: Law, change: Change) -> str:
    """The command that bisects the commits between two releases, by their tags."""
    good, bad = change.last.path.where, change.shown.path.where
    if change.shown.finding is Finding.GOOD:
        good, bad = bad, good
    words = ["specdiff", "bisect", recording, "--law", law.name, "--repo", "CLONE"]
    return shlex.join([*words, "--good", f"sglang@v{good}", "--bad", f"sglang@v{bad}"])


def print_history(recording: str, law: Law, tested: Sequence[JudgedCandidate]) -> None:
    console = Output()
    _print_head(console, recording, f"{tested[0].path} to {tested[-1].path}", law)
    _print_plays(console, tested, state)
    counts = {one: sum(judged.finding is one for judged in tested) for one in Finding}
    console.print(
        f"{len(tested)} versions: {counts[Finding.BAD]} break the law, {counts[Finding.GOOD]} keep it, "
        f"{counts[Finding.SKIPPED]} could not be judged."
    )


def _print_head(console: Output, recording: str, ends: str, law: Law) -> None:
    console.print(
        Text.assemble((recording, "bold"), f"  {ends}, judged by the law ", (law.name, "bold"))
    )
    console.print(law.statement, style="dim")
    console.print()


def state(one: JudgedCandidate) -> str:
    """The state of the law in words, or the verdict if the law could not be checked."""
    return one.outcome.state.value if one.outcome else one.finding.value


def _print_plays(
    console: Output, tested: Sequence[JudgedCandidate], word: Callable[[JudgedCandidate], str]
) -> None:
    table = console.table(
        "played", "", "checked", "broken", "first breach, or reason", right=(2, 3)
    )
    for one in tested:
        says = Text(word(one), STYLE[one.finding])
        table.add_row(str(one.path), says, *_counts(one), _words(one))
    console.print(table)
    console.print()


def _counts(one: JudgedCandidate) -> tuple[str, str]:
    if one.outcome is None:
        return "", ""
    return str(one.outcome.num_checked), str(one.outcome.num_broken)


def _words(one: JudgedCandidate) -> str:
    remark = one_line(one.why or "")
    if one.outcome is None or one.outcome.first is None:
        return remark
    breach = in_words(one.outcome.first)
    known = "known: " if one.outcome.known else ""
    return f"{known}{breach}" + (f"; {remark}" if remark else "")


def print_bisection_json(recording: str, found: LawBisection) -> None:
    write_json(
        {
            "schema_version": SCHEMA_VERSION,
            "recording": recording,
            "law": found.law.name,
            "good": str(found.good),
            "bad": str(found.bad),
            **span_to_json(found.search),
            "tested": [_tested(one) for one in found.search.tested],
        }
    )


def print_history_json(recording: str, law: Law, tested: Sequence[JudgedCandidate]) -> None:
    write_json(
        {
            "schema_version": SCHEMA_VERSION,
            "recording": recording,
            "law": law.name,
            "versions": [_tested(one) for one in tested],
        }
    )


def _tested(one: JudgedCandidate) -> dict[str, Any]:
    outcome = one.outcome
    return {
        "path": name(one),
        "verdict": one.finding.value,
        "state": outcome.state.value if outcome else None,
        "checked": outcome.num_checked if outcome else 0,
        "broken": outcome.num_broken if outcome else 0,
        "first": breach_to_json(outcome.first) if outcome and outcome.first else None,
        "why": one.why,
    }
