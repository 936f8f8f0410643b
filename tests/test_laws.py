"""Laws: broken exactly where the history of the fixes says, and by every falsified value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cuts import SOURCE
from gaps import without_start
from lifting import bundled_recording
from specdiff.cli.main import run
from specdiff.recorders import hdf5
from specdiff.recorders.cut import Cutter
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind, Mode
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.decisions import GOES_ON, decisions
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import LAWS, check, every_breach
from specdiff.replay.laws.law import LawOutcome, State
from specdiff.replay.observed import observed
from specdiff.replay.tails import tails
from specdiff.replay.verdict import ledger_of

OLD, NEW = "0.5.10-random", "0.5.23-random"
BROKEN = {
    "0.5.10-random": {"rows", "trainer", "returned", "stale", "sums"},
    "0.5.11-stale-retract": {"stale", "sums"},
    "0.5.12-stale-retract": {"sums"},
    "0.5.12-experts-overshoot": {"rows", "trainer", "returned", "sums"},
    "0.5.12-merge-filter": {"sums"},
    "0.5.13-merge-filter": set(),
    "0.5.13-experts-overshoot": set(),
    "0.5.13-per-token": {"hidden-states"},
    "0.5.14-per-token": set(),
    "0.5.23-random": set(),
    "0.5.23-new-weights": {"weights"},
}
# These recordings have nothing that these laws are about.
UNEXERCISED = {"session", "logprobs", "hidden-states", "weights"}
OF_THE_SERVER = {"returned"}  # about what the server sent, not about a path's books


@pytest.mark.parametrize("name", BROKEN)
def test_laws_are_broken_where_the_history_of_the_fixes_says(name: str) -> None:
    assert _broken(_outcomes(bundled_recording(name))) == BROKEN[name]


def test_every_other_law_is_exercised() -> None:
    for name in (OLD, NEW):
        idle = {o.law.name for o in _outcomes(bundled_recording(name)) if not o.num_checked}
        assert idle == UNEXERCISED


def test_a_path_with_a_fix_keeps_the_laws_that_the_fix_restores() -> None:
    recording = bundled_recording(OLD)
    broken = BROKEN[OLD] - OF_THE_SERVER
    assert _broken(_outcomes(recording, "old")) == broken
    assert _broken(_outcomes(recording, "old+23456")) == broken - {"stale"}
    assert _broken(_outcomes(recording, "fixed")) == set()
    assert _broken(_outcomes(recording, "sglang==0.5.23")) == set()
    assert _broken(_outcomes(bundled_recording(NEW), "old")) == broken


def _live(recording: Recording) -> NDArray[np.bool_]:
    rows = recording.result_rows
    live: NDArray[np.bool_] = (rows.finished == 0) & (rows.is_retracted == 0)
    return live & _decode(recording)


def _stale(recording: Recording) -> NDArray[np.bool_]:
    return _decode(recording) & ~_live(recording)


def _decode(recording: Recording) -> NDArray[np.bool_]:
    decode: NDArray[np.bool_] = recording.result_rows.accept_len != NONE32
    return decode


def _asked(recording: Recording) -> NDArray[np.bool_]:
    finishes = recording.finishes
    asked: NDArray[np.bool_] = (finishes.return_routed_experts == 1) & (finishes.experts_rows > 0)
    return asked


def _all(recording: Recording, table: str) -> NDArray[np.bool_]:
    size = len(dataclasses.astuple(getattr(recording, table))[0])
    return np.ones(size, dtype=bool)


@dataclasses.dataclass(frozen=True)
class Falsified:
    """One value of one observed column, changed. `breaks`: the laws that must notice it."""

    table: str
    column: str
    where: Callable[[Recording], NDArray[np.bool_]]
    change: Callable[[int], int]
    breaks: frozenset[str]


FALSIFIED = {
    "commit": Falsified(
        "result_rows", "committed_after", _live, lambda v: v + 1, frozenset({"commit"})
    ),
    "allocation": Falsified(
        "prepare_rows",
        "allocated_after",
        lambda r: _all(r, "prepare_rows"),
        lambda v: 0,
        frozenset({"allocation", "room"}),
    ),
    "committed beyond allocated": Falsified(
        "finishes",
        "committed",
        lambda r: _all(r, "finishes"),
        lambda v: v + 10**6,
        frozenset({"allocation"}),
    ),
    "rows": Falsified("finishes", "experts_rows", _asked, lambda v: v + 1, frozenset({"rows"})),
    "stride": Falsified(
        "results",
        "stride",
        lambda r: r.results.stride != NONE64,
        lambda v: v - 1,
        frozenset({"stride"}),
    ),
    "stale": Falsified(
        "result_rows", "committed_after", _stale, lambda v: v + 1, frozenset({"stale"})
    ),
    "sums": Falsified(
        "launches",
        "seq_lens_sum",
        lambda r: (r.launches.seq_lens_sum != NONE64) & (r.launches.num_rows > 0),
        lambda v: v - 1,
        frozenset({"sums"}),
    ),
    "statistics": Falsified(
        "finishes",
        "histogram_sum",
        lambda r: _all(r, "finishes"),
        lambda v: v + 1,
        frozenset({"statistics"}),
    ),
}


@pytest.mark.parametrize("what", FALSIFIED)
def test_a_falsified_book_breaks_its_law(what: str) -> None:
    falsified, recording = FALSIFIED[what], bundled_recording(NEW)
    table = getattr(recording, falsified.table)
    places = np.flatnonzero(falsified.where(recording))
    row = int(places[len(places) // 2])
    values = getattr(table, falsified.column).copy()
    values[row] = falsified.change(int(values[row]))
    changed = dataclasses.replace(table, **{falsified.column: values})
    found = _outcomes(dataclasses.replace(recording, **{falsified.table: changed}))
    assert _broken(found) == falsified.breaks
    breach = next(o.first for o in found if o.law.name in falsified.breaks)
    assert breach is not None and str(breach.found) != breach.expected


ELSEWHERE = {
    "test_laws_sessions.py": {"session"},
    "test_laws_weights.py": {"weights"},
    "test_sent.py": {"trainer", "tokens", "returned", "logprobs", "hidden-states"},
}
"""Where the laws are falsified that need a session, weights or a client."""


def test_every_law_is_falsified_here_or_known() -> None:
    seen = set().union(*(falsified.breaks for falsified in FALSIFIED.values()))
    for file, laws in ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert all(f'"{law}"' in text for law in laws), file
        seen |= laws
    assert {law.name for law in LAWS} <= seen | {"batch-accepted"}


def test_known_violations_are_reported_and_not_judged() -> None:
    found = {o.law.name: o for o in _outcomes(bundled_recording(NEW))}["batch-accepted"]
    assert found.state is State.KNOWN and found.num_broken > 0
    assert run(["check", _path(NEW)]) == 0


def test_only_the_known_lag_of_dflash_in_0_5_14_is_excused() -> None:
    """The lag is known for that release's launches and early-return filters.

    Every other breach is still judged.
    """
    recording = bundled_recording("0.5.14-dflash")
    for path in ("observed", "sglang==0.5.14"):
        found = _law("sums", recording, path)
        assert found.state is State.KNOWN and found.num_broken > 0
        assert found.known and "on purpose" in found.known
    # A commit of a clone has no version in its name, but the same code.
    unsaid = dataclasses.replace(recording.run, sglang_version="0.0.0.dev0")
    assert _law("sums", dataclasses.replace(recording, run=unsaid)).state is State.KNOWN
    assert _law("sums", recording, "old").state is State.BROKEN
    for changed in (
        dataclasses.replace(recording.run, books="0.5.15"),
        dataclasses.replace(recording.run, spec_algorithm="EAGLE"),
    ):
        assert _law("sums", dataclasses.replace(recording, run=changed)).state is State.BROKEN
    launches = recording.launches
    crowd = (launches.mode == Mode.DECODE) & (launches.num_rows > 2)
    behind = int(np.flatnonzero(crowd & (launches.seq_lens_sum != NONE64))[-1])
    event = int(recording.event_of(Kind.LAUNCH)[behind])
    first = _law("sums", recording).first
    assert first is not None and first.event < event  # the known ones come first
    for change in (+1, -1):
        values = launches.seq_lens_sum.copy()
        values[behind] += change
        changed_ = dataclasses.replace(launches, seq_lens_sum=values)
        found = _law("sums", dataclasses.replace(recording, launches=changed_))
        assert found.state is State.BROKEN and found.first is not None
        assert (found.first.event, found.first.found) == (event, values[behind])


def test_a_filter_that_removes_a_request_but_keeps_the_sum_breaks_the_law() -> None:
    recording = bundled_recording("0.5.14-dflash")
    filters, launches = recording.filters, recording.launches
    row = int(np.flatnonzero((filters.num_rows > 0) & (filters.num_rows < filters.size_before))[-1])
    event = int(recording.event_of(Kind.FILTER)[row])
    mine = launches.batch == filters.batch[row]
    before = np.flatnonzero(mine & (recording.event_of(Kind.LAUNCH) < event))[-1]
    values = filters.seq_lens_sum_after.copy()
    values[row] = launches.seq_lens_sum[before]
    kept = dataclasses.replace(filters, seq_lens_sum_after=values)
    found = _law("sums", dataclasses.replace(recording, filters=kept))
    assert found.state is State.BROKEN and found.first is not None
    assert found.first.event == event


def test_a_tail_that_continues_must_be_committed_exactly() -> None:
    """A tail that ends may have a token less."""
    recording = bundled_recording("0.5.23-mixed")
    rows, made = recording.result_rows, decisions(recording)
    going = made.row[made.finish == GOES_ON]
    tail = going[tails(recording).answered[going]]
    values = rows.committed_after.copy()
    values[tail[len(tail) // 2]] -= 1
    changed = dataclasses.replace(rows, committed_after=values)
    assert _law("commit", recording).state is State.HOLDS
    found = _law("commit", dataclasses.replace(recording, result_rows=changed))
    assert (found.state, found.num_broken) == (State.BROKEN, 1)


def test_stale_results_do_not_count_as_a_batchs_accepted_drafts() -> None:
    """Both of retracted and of finished requests."""
    recording = bundled_recording("0.5.11-stale-retract")
    rows, counted = recording.result_rows, recording.results.batch_accepted_drafts
    results = recording.owner(Kind.RESULT)
    more = (rows.accept_len > 1) & (counted[results] != NONE64)
    retracted, finished = (
        set(results[more & (gone == 1)].tolist()) for gone in (rows.is_retracted, rows.finished)
    )
    assert retracted - finished and finished - retracted
    assert _law("batch-accepted", recording).num_broken == len(retracted | finished)
    drafts = np.where(_live(recording), rows.accept_len - 1, 0)
    right = np.bincount(results, drafts, minlength=len(counted))[counted != NONE64]
    columns = Columns(recording)
    law = next(law for law in LAWS if law.name == "batch-accepted")
    assert law.check(columns, observed(columns)).low.tolist() == right.tolist()


@pytest.mark.parametrize("name", ["0.5.23-new-weights", OLD])
def test_jsonl_has_a_line_for_every_breach(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", _path(name), "--format", "jsonl"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for outcome in _outcomes(bundled_recording(name)):
        mine = [one for one in told if one["law"] == outcome.law.name]
        assert len(mine) == outcome.num_broken
        assert {one["state"] for one in mine} <= {outcome.state.value}
        if (first := outcome.first) is not None:
            keys = ("event", "step", "request", "counted", "found", "low", "high")
            here = (first.event, first.step, first.rid, first.counted, first.found)
            assert tuple(mine[0][key] for key in keys) == (*here, first.low, first.high)
    assert {one["recording"] for one in told} == {_path(name)}
    places = [(one["law"], one["event"], one["request"], one["counted"]) for one in told]
    assert len(set(places)) == len(places)


def test_a_law_that_cannot_be_checked_in_full_has_no_line() -> None:
    whole = bundled_recording("0.5.23-new-weights")
    short = dataclasses.replace(whole.spans, end=whole.spans.end - 1)
    recording = dataclasses.replace(whole, spans=short)
    sites = [dataclasses.replace(one, attached=one.name != "weights") for one in whole.run.sites]
    unhooked = dataclasses.replace(
        recording, run=dataclasses.replace(recording.run, sites=tuple(sites))
    )
    for one, broken in ((recording, True), (unhooked, False)):
        columns = Columns(one)
        laws = {law.name for law, _, _ in every_breach(columns, observed(columns))}
        assert ("weights" in laws) == broken


def test_a_law_that_was_not_exercised_says_why() -> None:
    """The reasons differ: no such event, not captured, or not in the format."""
    new = bundled_recording(NEW)
    assert (
        _why("session", new)
        == "turn of a streaming session that inherits KV: none in this recording"
    )
    absent = np.full_like(new.finishes.histogram_sum, NONE64)
    finishes = dataclasses.replace(new.finishes, histogram_sum=absent)
    lost = dataclasses.replace(new, finishes=finishes)
    assert _why("statistics", lost) == "spec_histogram not captured"
    assert "rules of the five fixes do not compute it" in _why("allocation", new, "fixed")
    assert "--path observed" in _why("stride", new, "fixed")
    first = hdf5.load(Path(__file__).parent.parent / "fixtures/frozen/v1-0.5.10-random.h5")
    for law in ("statistics", "session"):
        assert _why(law, first) == "not in format version 1"
    none = np.full_like(new.launches.seq_lens_sum, NONE64)
    silent = dataclasses.replace(
        new,
        launches=dataclasses.replace(new.launches, seq_lens_sum=none),
        filters=dataclasses.replace(
            new.filters, seq_lens_sum_after=np.full_like(new.filters.batch, NONE64)
        ),
        merges=dataclasses.replace(
            new.merges, seq_lens_sum_after=np.full_like(new.merges.batch, NONE64)
        ),
    )
    assert _why("sums", silent).endswith("none with values that the law can be checked on")


def test_after_a_gap_a_launch_without_its_prepare_is_not_judged() -> None:
    """What comes there instead of a prepare has its row in another table, which is longer."""
    recording = bundled_recording("0.5.12-experts-start-len")
    mine, at = np.array(recording.rids) == "start-1-1", np.arange(len(recording.events.kind))
    lost = ((at >= 4) & (at <= 5)) | ((at >= 36) & (at <= 67))
    cut = Cutter(recording, SOURCE)(mine, ~lost)
    assert len(cut.prepare_rows.qid) == 1 < np.count_nonzero(cut.launches.mode == Mode.DECODE)
    assert _law("room", recording).state is State.HOLDS
    assert _law("room", cut).state is State.NOT_EXERCISED


def test_rows_without_a_known_start_are_judged_only_where_they_are_too_many() -> None:
    """Up to 0.5.11 no scheduler is told the start. All rows may be right, but never more than that."""
    recording = bundled_recording("0.5.12-experts-start-len")
    stopped = without_start(recording)
    for law in ("trainer", "rows", "returned"):
        known, unknown = _law(law, recording), _law(law, stopped)
        assert 0 < unknown.num_checked < known.num_checked and not known.left_out
        assert 0 < unknown.num_broken == unknown.num_checked <= known.num_broken
        assert unknown.left_out and "of 10 requests was not captured" in unknown.left_out
    # A start that the client asked for is known, even if the finish does not say it.
    asked = dataclasses.replace(recording, finishes=stopped.finishes)
    assert _law("trainer", asked).num_checked == _law("trainer", recording).num_checked
    finishes, sents = stopped.finishes, stopped.sents
    fewer = dataclasses.replace(
        stopped,
        finishes=dataclasses.replace(finishes, experts_rows=finishes.experts_rows.clip(max=5)),
        sents=dataclasses.replace(sents, experts_rows=sents.experts_rows.clip(max=5)),
    )
    assert "the start_len of 10 requests was not captured" in _why("trainer", fewer)
    assert _law("rows", fewer).state is State.NOT_EXERCISED
    assert _law("trainer", dataclasses.replace(fewer, finishes=recording.finishes)).num_broken > 5


def _why(law: str, recording: Recording, path: str = "observed") -> str:
    found = _law(law, recording, path)
    assert found.state is State.NOT_EXERCISED and found.why_not_exercised
    return found.why_not_exercised


def _law(name: str, recording: Recording, path: str = "observed") -> LawOutcome:
    return next(o for o in _outcomes(recording, path) if o.law.name == name)


@pytest.mark.parametrize("name", [OLD, "0.5.11-stale-retract", NEW])
def test_counters_after_a_stale_result_equal_those_of_the_result_before_it(name: str) -> None:
    """Checked by a plain loop over the file. A first verify's counters are those of the prefill."""
    recording = bundled_recording(name)
    rows, stale = recording.result_rows, _stale(recording)
    last, found = dict[int, tuple[int, int]](), list[tuple[int, int]]()
    for row, qid in enumerate(rows.qid.tolist()):
        counters = int(rows.spec_verify_ct[row]), int(rows.spec_accepted_drafts[row])
        if stale[row] and qid in last:
            found += zip(counters, last[qid], strict=True)
        last[qid] = counters
    columns = Columns(recording)
    law = next(law for law in LAWS if law.name == "stale")
    places = law.check(columns, observed(columns))
    counters_ = places.some(places.counted > 0)  # the places after the length
    assert sorted(found) == sorted(
        zip(counters_.found.tolist(), counters_.low.tolist(), strict=True)
    )
    # These paths compute the same as the server did.
    same = "old" if name != NEW else "fixed"
    assert [_law("stale", recording, path).num_broken for path in ("observed", same)] == [
        int(places.holds.logical_not().sum())
    ] * 2
    assert _law("stale", recording, same).num_checked == len(places.event)


def test_the_counters_of_a_path_at_a_finish_are_those_that_the_server_had_there() -> None:
    """A path has none for a request that ends with its first token."""
    columns = Columns(bundled_recording(NEW))
    law = next(law for law in LAWS if law.name == "statistics")
    server, lifted = (
        law.check(columns, ledger_of(columns, Toggles(columns), spec.parse(path)))
        for path in ("observed", "sglang==0.5.23")
    )
    one, other = (
        {
            place: (found, low)
            for *place_, found, low in zip(
                *(getattr(made, name).tolist() for name in ("event", "counted", "found", "low")),
                strict=True,
            )
            if (place := tuple(place_))
        }
        for made in (server, lifted)
    )
    assert 100 < len(other) <= len(one) and other.items() <= one.items()
    assert all(low == 0 for place, (_, low) in one.items() if place not in other)


def test_a_request_whose_rows_begin_behind_its_end_has_none() -> None:
    recording = bundled_recording("0.5.13-experts-overshoot")
    finishes, sents, requests = recording.finishes, recording.sents, recording.requests
    behind = np.full_like(finishes.start_len, 10**6)
    for rows, broken in ((0, set[str]()), (1, {"rows", "returned"})):
        far = dataclasses.replace(
            recording,
            requests=dataclasses.replace(
                requests, start_len=np.full_like(requests.start_len, 10**6)
            ),
            finishes=dataclasses.replace(
                finishes,
                start_len=behind,
                experts_rows=np.where(finishes.experts_state == 1, rows, finishes.experts_rows),
            ),
            sents=dataclasses.replace(
                sents,
                experts_rows=np.where(sents.experts_rows == NONE64, NONE64, rows),
            ),
        )
        assert _broken(_outcomes(far)) == broken


def test_a_silenced_law_is_shown_and_not_judged() -> None:
    columns = Columns(bundled_recording(OLD))
    ledger = ledger_of(columns, Toggles(columns), spec.parse("observed"))
    found = check(columns, ledger, silenced={"stale"})
    assert {o.law.name: o.state for o in found}["stale"] is State.SILENCED
    assert _broken(found) == BROKEN[OLD] - {"stale"}


def test_check_exits_1_and_names_the_fix_if_a_law_is_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["check", _path(OLD)]) == 1
    said = capsys.readouterr().out
    assert "5 of" in said and "expected" in said and "#23456" in said
    assert run(["check", _path(OLD), "--path", "fixed"]) == 0


def test_check_of_several_recordings_prints_one_line_each_and_the_first_breaches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = (OLD, "0.5.13-merge-filter", "0.5.14-dflash")
    assert run(["check", *map(_path, names)]) == 1
    said = capsys.readouterr().out
    for name in names:
        outcomes = _outcomes(bundled_recording(name))
        (line,) = (line for line in said.splitlines() if line.startswith(f"{name}.h5  "))
        states = [
            {"+": "holds", "X": "broken", "k": "known violation", ".": "not exercised"}[sign]
            for sign in line.split()[1:]
        ]
        assert states == [outcome.state.value for outcome in outcomes]
        broken = [
            line for line in said.splitlines() if line.startswith(f"{name}.h5 ") and ": " in line
        ]
        assert len(broken) == len(_broken(outcomes)) and all(
            ", first at step" in line for line in broken
        )
    assert "none in this recording" not in said and len(said.splitlines()) < 40
    assert run(["check", *map(_path, names), "--details"]) == 1
    assert capsys.readouterr().out.count("none in this recording") > 5


def _path(name: str) -> str:
    from specdiff.cli.inputs import bundled

    return str(bundled() / f"{name}.h5")


def _outcomes(recording: Recording, path: str = "observed") -> tuple[LawOutcome, ...]:
    columns = Columns(recording)
    return check(columns, ledger_of(columns, Toggles(columns), spec.parse(path)))


def _broken(outcomes: tuple[LawOutcome, ...]) -> set[str]:
    return {outcome.law.name for outcome in outcomes if outcome.state is State.BROKEN}


def test_no_law_is_checked_on_messages_of_requests_that_arrived_before_the_recording() -> None:
    """Some messages may have been sent before the recording began."""
    recording = bundled_recording("0.5.23-random")
    arrives = dataclasses.replace(
        recording.arrives, requeued=np.full_like(recording.arrives.requeued, NONE64)
    )
    for changed in (recording, dataclasses.replace(recording, arrives=arrives)):
        columns = Columns(changed)
        found = {one.law.name: one for one in check(columns, observed(columns))}
        exercised = changed is recording
        assert (found["tokens"].num_checked > 0) == (found["trainer"].num_checked > 0) == exercised
