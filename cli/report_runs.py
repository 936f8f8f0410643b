"""A run of several schedulers as tables: which are recorded, which are not, and whether the ranks agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from ..recorders.errors import printable, printable_id
from ..recorders.runs import Absent, GroupOfRun, Member, WholeRun
from ..replay.agreement import Agreement
from ..replay.aligned import RankDifference
from ..replay.rank_comparison import InStep, RanksOfRun
from .console import Output

_SIDES = {
    "prefill": "prompts only; a request ends when its KV is sent. There is no decode, so no committed length, verify count or "
    "finish decision to replay. Sums, allocations and released lengths are replayed",
    "decode": "starts when a prompt is handed over. The computation of the prompt, the decision on its first token and the "
    "routed rows of prompts are on the prefill side. All of decode is replayed",
}
_RANK_STYLE = {"left out": "dim", "no recording here": "yellow"}


def print_runs(runs: Sequence[WholeRun]) -> None:
    """Print the runs that have several schedulers or a manifest."""
    console = Output()
    for run in runs:
        if not run.alone:
            _print_run(console, run)


def _print_run(console: Output, run: WholeRun) -> None:
    hosts = f", hosts: {', '.join(map(printable, run.hosts))}" if run.hosts else ""
    counts = f"recordings: {len(run.members)}, attention groups: {len(run.groups)}{hosts}, "
    head = (f"run {printable(run.run_id)}", "bold")
    console.print(Text.assemble(head, "  ", counts, _state(run)))
    if run.members:
        _print_members(console, run)
    for group in run.groups:
        for what, sentence in _absent(group):
            style = "bold red" if group.missing else _RANK_STYLE.get(what, "bold red")
            console.print(Text(f"{what}: {sentence}", style=style))
        if group.ambiguous:
            console.print(
                Text(
                    f"warning: several processes claim to be {_name(group)}; they belong to different servers",
                    style="yellow",
                )
            )
    for sentence in run.unplaced:
        console.print(Text(f"not recorded: {printable(sentence)}", style="bold red"))
    for side in sorted({group.side for group in run.groups} - {""}):
        console.print(f"{side} side: {_SIDES[side]} (docs/ranks.md)")
    console.print()


def _state(run: WholeRun) -> tuple[str, str]:
    """Whether everything that was to be recorded is here, and the style to print that in.

    Ranks that were left out on purpose lack nothing. Those of a missing group are counted with it.
    """
    missing = sum(group.missing for group in run.groups)
    rest = [one for group in run.groups if not group.missing for one in group.absent]
    lost = sum(one.num_lost for one in rest)
    failed = sum(one.failed for one in rest) + len(run.unplaced)
    unknown = sum(one.unknown for one in rest)
    wrong = [f"{missing} of {len(run.groups)} attention groups missing"] if missing else []
    wrong += [f"{_count(lost, 'recording')} missing"] if lost else []
    wrong += [f"{_count(failed, 'scheduler')} not recorded"] if failed else []
    unsure = [f"{_count(unknown, 'rank')} unaccounted for"] if unknown else []
    style = "bold red" if wrong else "yellow" if unsure else "green"
    return ", ".join(wrong + unsure) or "complete", style


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _print_members(console: Output, run: WholeRun) -> None:
    table = console.table(
        "rank",
        "recording",
        "steps",
        "launches",
        "requests",
        "events",
        "dropped",
        "overhead per decode step",
        "complete",
        right=(3, 4, 5, 6),
    )
    for one in run.members:
        table.add_row(
            _rank(one),
            one.path.name,
            "-" if one.steps is None else f"{one.steps[0]} to {one.steps[1]}",
            str(one.num_launches),
            str(one.num_requests),
            str(one.num_events),
            str(one.num_dropped),
            _cost(one),
            _whole(one),
        )
    console.print(table)


def _rank(member: Member) -> str:
    return f"{member.side} {member.rank.words}".strip()


def _cost(member: Member) -> str:
    p50, p99 = member.step_ns
    if p50 is None or p99 is None:
        return "not measured"
    return f"{p50 / 1000:.0f} us p50, {p99 / 1000:.0f} us p99"


def _whole(member: Member) -> str:
    notes = [f"made by {', '.join(member.made)}"] if member.made else []
    notes += [f"the recorder failed {member.num_exceptions} times"] if member.num_exceptions else []
    notes += [member.damage] if member.damage else []
    notes += [] if member.closed or member.damage else ["up to its last write"]
    return "; ".join(notes) or "yes"


def _name(group: GroupOfRun) -> str:
    dp, pp = group.group
    return f"{group.side} dp {dp}, pp {pp}".strip()


def _absent(group: GroupOfRun) -> Iterator[tuple[str, str]]:
    """What became of schedulers, and one sentence per reason with the ranks that it applies to."""
    by_why: dict[tuple[str, str], list[int]] = {}
    for one in group.absent:
        by_why.setdefault(_why(one), []).append(one.tp_rank)
    for (what, why), ranks in by_why.items():
        names = ", ".join(map(str, ranks))
        lost = "; no recording here has the requests of this group" if group.missing else ""
        yield what, f"{_name(group)}, tp {names}: {printable(why)}{lost}"


def _why(one: Absent) -> tuple[str, str]:
    names = ", ".join(one.journals)
    if one.num_here:
        written = f"it was recorded {len(one.journals)} times (journals {names})"
        return "missing", f"{written}, but only {one.num_here} of these recordings can be read here"
    if one.journals:
        journals = "journal" if len(one.journals) == 1 else "journals"
        return (
            "missing",
            f"it was recorded, but no recording of its {journals} {names} can be read here",
        )
    if one.left_out:
        return "left out", "another rank of its group is recorded instead"
    if one.why is not None:
        return "not recorded", one.why
    return "no recording here", "no manifest here says whether it was recorded"


def print_ranks(found: Sequence[RanksOfRun]) -> None:
    """Print whether the ranks that should agree do, and what was not compared."""
    console = Output()
    for one in found:
        console.print(Text(f"ranks of run {printable(one.run.run_id)}", style="bold"))
        if one.pairs:
            _print_pairs(console, one)
        if one.in_step is not None:
            console.print(_in_step(one.in_step))
        for sentence in one.not_compared:
            console.print(Text(f"not compared: {sentence}", style="yellow"))
        console.print()


def _print_pairs(console: Output, found: RanksOfRun) -> None:
    table = console.table(
        "ranks",
        "",
        "events",
        "values",
        "differ",
        "first difference",
        "not compared",
        right=(2, 3, 4),
    )
    for pair in found.pairs:
        result = pair.agreement
        table.add_row(
            f"{_rank(pair.left)} and {_rank(pair.right)}",
            _agree(result),
            str(result.num_events),
            str(result.num_values),
            str(result.num_differed),
            "; ".join(_differences(result)) or "-",
            _uncompared(result),
        )
    console.print(table)


def _agree(result: Agreement) -> Text:
    if result.first:
        return Text("differ", style="bold red")
    if not result.num_events:
        return Text("nothing was compared", style="yellow")
    return Text("agree", style="green")


def _differences(result: Agreement) -> Iterator[str]:
    if result.first:
        yield difference(result.first)
    if result.first_of_request and result.first_of_request != result.first:
        yield f"first in a request: {difference(result.first_of_request)}"


def difference(first: RankDifference) -> str:
    who = "batch" if first.rid is None else f"request {printable_id(first.rid)}"
    say = printable_id if first.what == "request" else printable
    left, right = (say(str(value)) for value in (first.left, first.right))
    return f"step {first.step}, {first.kind.words} (event {first.event}), {who}: {first.what} {left} and {right}"


def _uncompared(result: Agreement) -> str:
    if not (result.num_left or result.num_right):
        return "-"
    return f"{result.num_left} and {result.num_right} events: {'; '.join(result.why)}"


def _in_step(found: InStep) -> Text:
    counts = "; ".join(f"{_rank(one)}: {one.num_launches}" for one in found.members)
    launches = f"launches, including idle ones: {counts}"
    if found.why_not:
        return Text(f"{launches}. Not judged: {found.why_not}", style="dim")
    if found.differs:
        return Text(
            f"{launches}. They differ, but ranks of DP attention launch together.", style="bold red"
        )
    return Text(
        f"{launches}. They are equal. The ranks serve different requests, so nothing else is compared.",
        style="dim",
    )
