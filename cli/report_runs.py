"""A run of several schedulers as tables: which are recorded, which are not, and whether the ranks agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from ..recorders.errors import printable
from ..recorders.runs import GroupOfRun, Member, WholeRun
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
_NOWHERE = "there is no recording of it here, and no manifest that says why"


def print_runs(runs: Sequence[WholeRun]) -> None:
    """Print the runs that have several schedulers or a manifest."""
    console = Output()
    for run in runs:
        if not run.alone:
            _print_run(console, run)


def _print_run(console: Output, run: WholeRun) -> None:
    missing = [group for group in run.groups if group.missing]
    state = (
        f"{len(missing)} of {len(run.groups)} attention groups missing" if missing else "complete"
    )
    style = "bold red" if missing else "green"
    hosts = f", hosts: {', '.join(map(printable, run.hosts))}" if run.hosts else ""
    counts = f"recordings: {len(run.members)}, attention groups: {len(run.groups)}{hosts}, "
    head = (f"run {printable(run.run_id)}", "bold")
    console.print(Text.assemble(head, "  ", counts, (state, style)))
    if run.members:
        _print_members(console, run)
    for group in run.groups:
        for sentence in _absent(group):
            console.print(Text(sentence, style="bold red" if group.missing else "dim"))
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


def _absent(group: GroupOfRun) -> Iterator[str]:
    """One sentence per reason, with the ranks that it applies to."""
    by_why: dict[tuple[bool, str], list[int]] = {}
    for one in group.absent:
        why = (
            "another rank of its group is recorded instead" if one.left_out else one.why or _NOWHERE
        )
        by_why.setdefault((one.left_out, why), []).append(one.tp_rank)
    for (left_out, why), ranks in by_why.items():
        what = "left out" if left_out else "not recorded"
        names = ", ".join(map(str, ranks))
        lost = "; the requests of this group are not recorded" if group.missing else ""
        yield f"{what}: {_name(group)}, tp {names}: {printable(why)}{lost}"


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
    who = "batch" if first.rid is None else f"request {printable(first.rid)}"
    left, right = (printable(str(value)) for value in (first.left, first.right))
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
