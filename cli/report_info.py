"""What a recording contains, as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from ..recorders.errors import printable
from ..recorders.pseudonyms import contents
from ..recorders.recording import Recording
from ..recorders.runs import begins_at, lost_in_gaps
from ..recorders.schema import VERSION, ControlAct, Kind
from ..recorders.stored_rows import StoredRows
from ..replay.exercised import exercised
from ..replay.held import branches_not_held, not_in
from .console import Output


def print_info(path: Path, recording: Recording) -> None:
    console = Output()
    console.print(Text(path.name, style="bold"))
    table = console.table("", "")
    for name, value in (*_who(recording), *_what(recording, path), *_whole(recording)):
        table.add_row(name, value)
    console.print(table)
    console.print()


def _who(recording: Recording) -> Iterator[tuple[str, str]]:
    run = recording.run
    commit = f", commit {run.sglang_commit}" if run.sglang_commit else ""
    yield "sglang", f"{run.sglang_version}{commit}, books: {run.books}"
    yield (
        "recorded",
        f"{run.started}, by specdiff {run.specdiff_version}, pid {run.pid}, run {run.run_id}",
    )
    for step in recording.derived:
        yield (
            "derived",
            f"by specdiff {step.how}: {step.description}; from sha256 {step.source[:16]}",
        )
    yield (
        "format",
        f"content of version {recording.version}; this specdiff writes version {VERSION}",
    )
    yield "command", printable(shlex.join(run.command)) or "left out"
    steps = f"{run.num_steps} steps, topk {run.topk}, {run.num_draft_tokens} draft tokens"
    yield (
        "speculation",
        f"{run.spec_algorithm}, spec v2 {_on(run.spec_v2)}, overlap {_on(run.overlap)}, {steps}",
    )
    yield "server", f"device {run.device}, page size {run.page_size}, {_ranks(recording)}"
    capturers = (("routed experts", run.experts_capturer), ("indexer top-k", run.indexer_capturer))
    yield "capturers", ", ".join(f"{name} {_on(present)}" for name, present in capturers)


def _on(state: bool) -> str:
    return "on" if state else "off"


def _ranks(recording: Recording) -> str:
    run = recording.run
    tp_pp = f"tp {run.tp_rank} of {run.tp_size}, pp {run.pp_rank} of {run.pp_size}"
    if run.dp_rank is None:  # a server without data parallelism gives its schedulers no dp rank
        return tp_pp if run.dp_size == 1 else f"dp - of {run.dp_size}, {tp_pp}"
    return f"dp {run.dp_rank} of {run.dp_size}, {tp_pp}"


def _what(recording: Recording, path: Path) -> Iterator[tuple[str, str]]:
    yield "requests", str(len(recording.rids))
    counts = ", ".join(
        f"{kind.words} {count}" for kind in Kind if (count := len(recording.event_of(kind)))
    )
    yield "events", f"{len(recording.events.kind)}: {counts or 'none'}"
    yield "rows", f"{len(recording.result_rows.qid)} result rows, {len(recording.tokens)} tokens"
    yield "top-k rows", _rows(recording)
    if versions := recording.run.weight_versions:
        changes = int((recording.controls.act == ControlAct.WEIGHTS).sum())
        yield "weights", f"{_some(versions)}; {changes} changes recorded"
    branches = exercised(recording)
    yield (
        "exercised",
        ", ".join(f"{name} {count}" for name, count in branches.items() if count) or "nothing",
    )
    unheld = branches_not_held(recording)
    missed = [name for name, count in branches.items() if not count and name not in unheld]
    yield "never reached", ", ".join(missed) or "-"
    if unheld:
        yield not_in(recording.version), ", ".join(unheld)
    yield "branches", "explained in docs/books.md#branches"
    yield "size", f"{path.stat().st_size:,} bytes"
    yield "contents", _contents(recording)


def _some(names: Sequence[str]) -> str:
    """A short form of a list that may have hundreds of entries."""
    return ", ".join(names) if len(names) < 6 else f"{names[0]}, {names[1]}, ... {names[-1]}"


def _rows(recording: Recording) -> str:
    kept = (_kept(recording, which) for which in ("experts", "indexer"))
    rows = recording.run.rows
    asked = f"; recorded with --experts {rows}" if rows else ""
    return f"{len(recording.experts)} routed experts{next(kept)}, {len(recording.indexer)} indexer{next(kept)}{asked}"


def _kept(recording: Recording, which: str) -> str:
    """For how many finishes the recording contains the returned rows, and the rows that the server had beyond those."""
    if not len(getattr(recording, which)):
        return ""
    counts = StoredRows(recording, which).coverage()
    return (
        f" (all returned rows for {counts.returned} of {counts.collected} finishes; rows to the end of the sequence for "
        f"{counts.to_the_end} of {counts.finishes}, {counts.whole} of these from row 0)"
    )


def _contents(recording: Recording) -> str:
    if held := contents(recording):
        return f"warning: contains {', '.join(held)}; `specdiff redact` removes them. No prompts."
    return "redacted: filler tokens only, no ids, no command line. No prompts."


def _whole(recording: Recording) -> Iterator[tuple[str, str]]:
    sites = recording.run.sites
    missing = [f"{site.name} ({site.target})" for site in sites if not site.attached]
    attached = len(sites) - len(missing)
    yield (
        "hook sites",
        f"{attached} attached" + (f", missing: {', '.join(missing)}" if missing else ""),
    )
    stats = recording.stats
    if stats is None:
        yield "recorder", "killed before it wrote its statistics"
    else:
        errors = _counted(stats.exceptions, "exception") + (
            f" (first: {stats.first_exception})" if stats.exceptions else ""
        )
        yield (
            "recorder",
            f"{_counted(stats.dropped, 'event')} dropped, {errors}, {_cost(recording)}",
        )
    yield "complete", _up_to(recording) + _gaps(recording)


def _up_to(recording: Recording) -> str:
    if recording.damage:
        return f"no, its end was lost ({recording.damage})"
    if recording.stats is not None and recording.stats.closed:
        return "yes"
    return "up to its last write: the process was killed, could no longer write, or is still running (flushed ring)"


def _gaps(recording: Recording) -> str:
    lost, begun = lost_in_gaps(recording), int((recording.seed_rows.begins == 1).sum())
    step, says = begins_at(recording), ""
    if num := int(lost.sum()):
        where = f"{_counted(num, 'event')} in {_counted(int((lost > 0).sum()), 'gap')}"
        says += f"; also without {where}" if recording.damage else f", except for {where}"
    if step is not None:
        says += f"; begins at step {step}, on a running server"
    return says + (f"; {_counted(begun, 'request')} under way after a gap" if begun else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cost(recording: Recording) -> str:
    stats = recording.stats
    if stats is None or stats.step_ns_p50 is None or stats.step_ns_p99 is None:
        return "overhead not measured"
    says = f"overhead per decode step {_times(stats.step_ns_p50, stats.step_ns_p99)}"
    if stats.prefill_ns_p50 is not None and stats.prefill_ns_p99 is not None:
        says += f", per prefill {_times(stats.prefill_ns_p50, stats.prefill_ns_p99)}"
    return says


def _times(p50: int, p99: int) -> str:
    return f"{p50 / 1000:.0f} us p50, {p99 / 1000:.0f} us p99"
