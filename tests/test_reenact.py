"""Playing a recording again: the real scheduler reproduces every table, and a changed sglang shows."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from children import on_demand
from gaps import ended, without
from patched import patched_tree
from recorded import RigRecorder
from specdiff.cli.inputs import bundled
from specdiff.cli.main import NO_VERDICT, SAME, USAGE, run
from specdiff.fixtures.rig.__main__ import main
from specdiff.fixtures.rig.drive import ScenarioRun
from specdiff.fixtures.rig.errors import RigError
from specdiff.fixtures.rig.play import release_of
from specdiff.fixtures.rig.reenact.loop_turns import loop_turns
from specdiff.fixtures.rig.reenact.reenact import played_again, reenactment
from specdiff.fixtures.rig.reenact.request_ids import aborted_with_others, distinct
from specdiff.fixtures.rig.reenact.traces import RequestTrace, Traces, traces_of
from specdiff.fixtures.rig.release import RELEASES, Release, find_release
from specdiff.fixtures.rig.scenarios import find_scenario
from specdiff.fixtures.rig.tokens import accepted, token
from specdiff.fixtures.rig.truth import Answer
from specdiff.fixtures.rig.written import read_scenario
from specdiff.recorders import hdf5
from specdiff.recorders.recording import TABLE_NAMES, Recording
from specdiff.recorders.run import JsonScalar
from specdiff.recorders.schema import NONE32, NONE64, Controls, Events, Kind, Reason, columns_in
from specdiff.replay.laws.law import State
from test_seeds import from_here_on, noted
from test_trainer import outcomes

SERVED = bundled().parent / "served"
ALL = [*sorted(bundled().glob("*.h5")), *sorted(SERVED.glob("*.h5"))]
NOT_PLAYED = re.compile("session|disagg|adaptive")
ALONE = re.compile("-rank")  # one of several ranks that stepped together


def differing(one: Recording, other: Recording) -> list[str]:
    """Return the columns that differ, of those that the older of the two formats has.

    Times and the contents of routed rows are not compared. Rows depend on the prompts, and the rig sends other prompts.
    """
    version = min(one.version, other.version)
    kinds = [events_of(recording, version) for recording in (one, other)]
    found = [] if np.array_equal(kinds[0], kinds[1]) else ["events.kind"]
    for name, table in TABLE_NAMES.items():
        for column in columns_in(version, name, table):
            pair = [getattr(getattr(recording, name), column) for recording in (one, other)]
            if name != "events" and not np.array_equal(pair[0], pair[1]):
                found.append(f"{name}.{column}")
    return found if np.array_equal(one.tokens, other.tokens) else [*found, "tokens"]


def events_of(recording: Recording, version: int) -> NDArray[np.int64]:
    """Return kind and iteration of the events that exist in this version of the format."""
    new = (Kind.CONTROL, Kind.WEIGHT_SPAN) if version < 5 else ()
    events = recording.events
    return np.stack((events.kind, events.iteration))[:, ~np.isin(events.kind, new)]


# Recording -> columns that differ. served/ was recorded over HTTP, at the clients' own pace.
AGAIN = [
    (SERVED / "0.5.23.h5", ["events.kind"]),  # two events are swapped: an abort and an arrival
    # It does not hold from where on rows were wanted, so its play asks for all of them, and records that.
    (bundled() / "0.5.10-random.h5", ["requests.start_len", "finishes.start_len"]),
    (bundled() / "0.5.23-mixed.h5", []),
    *on_demand(
        (SERVED / "0.5.12.h5", []),
        (bundled() / "0.5.13-chunked.h5", []),
        (bundled() / "0.5.14-dflash.h5", []),
        (bundled() / "0.5.23-random.h5", []),
    ),
]


@pytest.mark.live
@pytest.mark.parametrize(("path", "other"), AGAIN, ids=lambda of: getattr(of, "stem", ""))
def test_the_scheduler_reproduces_a_recording(
    path: Path, other: list[str], record: RigRecorder
) -> None:
    once = hdf5.load(path)
    again = record(once.run.sglang_version, str(path), 0)
    assert differing(once, again) == other


WEIGHTS = bundled() / "0.5.23-new-weights.h5"
FOUND_IN_CACHE = ["extend_rows.prefix_len", "extend_rows.extend_len"]


@pytest.mark.live
def test_a_fixed_sglang_mislabels_no_tokens_when_it_plays_the_recorded_incident(
    record: RigRecorder, tmp_path: Path
) -> None:
    """0.5.23 labels tokens as it did before. A tree whose pause waits for the result under way mislabels none."""
    once = hdf5.load(WEIGHTS)
    assert _mislabelled(once) > 10
    again = record("0.5.23", str(WEIGHTS), 0)
    # A recording does not say whose tokens an extend found in the cache. After a flush it may find others.
    assert differing(once, again) == FOUND_IN_CACHE
    assert _mislabelled(again) == _mislabelled(once)
    patched = record(str(patched_tree(tmp_path, "0.5.23")), str(WEIGHTS), 0)
    assert len(patched.spans.qid) > 80 and _mislabelled(patched) == 0
    assert _ends(patched) == _ends(once)


def _mislabelled(recording: Recording) -> int:
    outcome = outcomes(recording)["weights"]
    assert outcome.state in (State.BROKEN, State.HOLDS)
    return outcome.num_broken


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_an_exported_scenario_equals_what_the_rig_plays(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.toml"
    code = run(["export", str(path), "--format", "scenario", "-o", str(target)])
    if NOT_PLAYED.search(path.stem):
        assert code == NO_VERDICT and not target.exists()
        return
    assert code == SAME
    again = reenactment(hdf5.load(path), "x")
    assert read_scenario(target) == again.scenario
    told = target.read_text().split("\n\n")[0]
    assert [note in told for note in again.notes] == [True] * len(again.notes)
    assert bool(ALONE.search(path.stem)) == ("of several" in told)


def test_a_recording_or_scenario_may_name_the_release_that_plays_it(tmp_path: Path) -> None:
    """A recording names the release that was recorded, a scenario the release in which it showed a bug."""
    silent = tmp_path / "x.toml"
    silent.write_text("[[request]]\nrid = 'a'\n")
    assert release_of(str(WEIGHTS)) == "0.5.23" and release_of(str(silent)) is None
    done = CliRunner().invoke(main, ["--scenario", str(silent)])
    assert done.exit_code == 2 and "--sglang is missing. " in done.output
    recording = hdf5.load(WEIGHTS)
    strange = replace(recording, run=replace(recording.run, sglang_version="0.5.24.dev7"))
    hdf5.save(strange, tmp_path / "x.h5")
    assert release_of(str(tmp_path / "x.h5")) is None
    assert reenactment(strange, "x.h5").scenario.sglang == ""
    done = CliRunner().invoke(main, ["--scenario", str(tmp_path / "none.h5")])
    assert done.exit_code == 1 and "none.h5: no such file" in done.output


def test_export_to_a_scenario_refuses_options_that_do_not_apply(tmp_path: Path) -> None:
    whole = ["export", str(WEIGHTS), "--format", "scenario", "-o", str(tmp_path / "x.toml")]
    for more in (["--quantity", "finish"], ["--path", "old"], ["--fixed", "fixed"]):
        assert run([*whole, *more]) == USAGE


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"server_args": {"speculative_adaptive": True}}, "adaptive"),
        ({"server_args": {"disaggregation_mode": "decode"}}, "one side of a disaggregated server"),
        ({"spec_algorithm": "UNO"}, "its draft algorithm is UNO, and the rig plays only EAGLE"),
        ({"server_args": {"enable_priority_scheduling": True}}, "have priorities"),
        ({"num_draft_tokens": 1}, "it has 1 draft tokens"),
    ],
)
def test_a_recording_that_the_rig_cannot_play_is_refused_with_the_reason(
    wrong: dict[str, object], says: str
) -> None:
    recording = hdf5.load(WEIGHTS)
    with pytest.raises(RigError, match=f"x cannot be played again: .*{says}"):
        reenactment(replace(recording, run=replace(recording.run, **wrong)), "x")  # type: ignore[arg-type]


def test_a_part_of_a_recording_in_which_no_books_begin_is_refused() -> None:
    """`shrink` can leave such a part. All its gaps count as before the first extend, because there is none."""
    recording = hdf5.load(WEIGHTS)
    kinds = recording.events.kind
    begun = np.flatnonzero(kinds == Kind.EXTEND)
    at = int(np.argmax(np.diff(begun)))  # the longest stretch without an extend
    late = without(ended(recording, int(begun[at + 1])), 0, int(begun[at]) + 1)
    assert len(late.events.kind) > 10 and Kind.RESULT in late.events.kind
    for part, why in (
        (late, "the books of no request begin in it"),
        (without(late, 5, 6), "events are missing in the middle of it"),
    ):
        with pytest.raises(RigError, match=f"x cannot be played again: {why}"):
            reenactment(part, "x")


def test_a_release_without_names_for_weights_is_sent_no_weight_changes() -> None:
    """The pauses themselves do not change."""
    older = Release("0.5.16", Path())
    again, whole = played_again(WEIGHTS, older), reenactment(hdf5.load(WEIGHTS), "x")
    assert whole.scenario.weights_at and not again.scenario.weights_at
    assert replace(again.scenario, weights_at=whole.scenario.weights_at, name="x") == whole.scenario
    assert any("cannot name weights" in note for note in again.notes)


@pytest.mark.live
def test_a_release_without_an_indexer_is_not_asked_for_indexer_rows() -> None:
    path = bundled() / "0.5.12-indexer-topk.h5"
    again, whole = (played_again(path, find_release(at)) for at in ("0.5.11", "0.5.12"))
    asked = [
        one.return_indexer_topk for one in (*again.scenario.requests, *whole.scenario.requests)
    ]
    assert not any(asked[: len(asked) // 2]) and any(asked[len(asked) // 2 :])
    assert not again.scenario.capture_indexer and whole.scenario.capture_indexer
    assert any("top-k is not captured" in note for note in again.notes)


def test_the_report_counts_batches_and_names_requests_that_ended_differently() -> None:
    """For a request that ended differently, the report says how it ended in the recording."""
    recording = hdf5.load(WEIGHTS)
    again = reenactment(recording, "x")
    answers = {rid: _answer(rid, *end) for rid, end in again.endings.items()}
    same = list(again.compared(ScenarioRun(answers, 1, 0.0, len(recording.launches.launch))))
    assert same[:-2] == list(again.notes)
    assert same[-2:] == [
        f"{again.num_launches} batches were launched; the recording has {again.num_launches}",
        "24 of 24 requests ended as in the recording",
    ]
    rid, (reason, length) = next(
        item for item in again.endings.items() if item[1][0] != Reason.ABORT
    )
    answers[rid] = _answer(rid, reason, length + 1)
    *_, count, other = again.compared(ScenarioRun(answers, 1, 0.0, 7))
    assert count.startswith("23 of 24")
    assert other.startswith(f"{rid}: ") and other.endswith(f" at {length}")
    rid = 3000 * "x"  # long ids are shortened
    again = replace(again, endings={rid: (reason, length)})
    played = ScenarioRun({rid: _answer(rid, reason, length + 1)}, 1, 0.0, 7)
    assert len(again.ended_differently(played)[0]) < 200


def _answer(rid: str, reason: int, length: int) -> Answer:
    kind = {Reason.LENGTH: "length", Reason.ABORT: "abort"}.get(Reason(reason), "stop")
    return Answer(rid, [0] * length, {"type": kind, "matched": 1})


def test_a_recording_without_a_flush_site_gets_a_note_that_flushes_are_unknown() -> None:
    recording = hdf5.load(WEIGHTS)
    sites = tuple(site for site in recording.run.sites if site.name != "flush")
    older = replace(recording, run=replace(recording.run, sites=sites))
    said = [
        "flushes were not recorded" in "".join(reenactment(one, "x").notes)
        for one in (recording, older)
    ]
    assert said == [False, True]


def test_a_recording_without_the_start_of_the_rows_gets_a_note() -> None:
    path = bundled() / "0.5.12-experts-start-len.h5"
    recording = hdf5.load(path)
    starts = np.full_like(recording.requests.start_len, NONE64)
    older = replace(recording, requests=replace(recording.requests, start_len=starts))
    said = [
        "the first routed row that 10 requests asked for" in "".join(reenactment(one, "x").notes)
        for one in (recording, older)
    ]
    assert said == [False, True]


@pytest.mark.live
@pytest.mark.parametrize("version", ["0.5.23", *on_demand("0.5.12")])
def test_a_recording_that_began_on_a_running_server_is_played_from_there(
    version: str, record: RigRecorder, tmp_path: Path
) -> None:
    """A request that was under way starts with the output it had by then, and ends as recorded."""
    records = noted(version)
    prepares = [place for place, (kind, _) in enumerate(records) if kind == Kind.PREPARE]
    late = from_here_on(records, prepares[len(prepares) // 5], tmp_path)
    assert traces_of(late).of[int(late.seed_rows.qid[0])].arrival == -1  # before the first turn
    path = tmp_path / "late.h5"
    hdf5.save(late, path)
    again = record(version, str(path), 0)
    assert (
        sum("running when the recording began" in note for note in reenactment(late, "x").notes)
        == 1
    )
    ends = [_ends(recording) for recording in (late, again)]
    assert len(ends[0]) > 20 and ends[0] == {rid: ends[1][rid] for rid in ends[0]}
    verifies = [_verifies(recording) for recording in (late, again)]
    # A few may differ: a stop or an abort can come one run earlier or later, because the request was
    # not prefilled in exactly that turn.
    assert len(verifies[0] - verifies[1]) < len(verifies[0]) // 50 and len(verifies[0]) > 300


def _verifies(recording: Recording) -> set[tuple[str, int, int, int]]:
    """Return for each verify: request, tokens accepted, committed length before and after."""
    rows = recording.result_rows
    columns = (rows.qid, rows.accept_len, rows.committed_before, rows.committed_after)
    return {
        (recording.rids[qid], *rest)
        for qid, *rest in zip(*(column.tolist() for column in columns), strict=True)
        if rest[0] != NONE32
    }


def _ends(recording: Recording) -> dict[str, tuple[int, int]]:
    """Return by rid why a request ended and the length of its prompt and output together.

    Leaves out aborted requests and those whose books were never known.
    """
    finishes, known = (
        recording.finishes,
        set(recording.extend_rows.qid) | set(recording.seed_rows.qid),
    )
    return {
        recording.rids[qid]: (reason, origin + length)
        for qid, reason, origin, length in zip(
            finishes.qid.tolist(),
            finishes.reason.tolist(),
            finishes.origin_len.tolist(),
            finishes.finished_len.tolist(),
            strict=True,
        )
        if qid in known and reason != Reason.ABORT
    }


@pytest.mark.parametrize(
    "name", ["0.5.10-random", "0.5.13-chunked", "0.5.14-dflash", "0.5.23-mixed"]
)
def test_the_runs_found_in_a_recording_equal_the_script(name: str) -> None:
    """The rig computes a run from the request and the output position, so a position that is off by one shows."""
    recording = hdf5.load(bundled() / f"{name}.h5")
    command = recording.run.command
    told = {
        flag: command[command.index(flag) + 1] for flag in ("--scenario", "--seed", "--requests")
    }
    scenario = find_scenario(told["--scenario"], int(told["--seed"]), int(told["--requests"]))
    scripts = {script.rid: script for script in scenario.requests}
    runs = [
        (rid, position, run)
        for rid, trace in zip(recording.rids, _by_qid(traces_of(recording)), strict=True)
        for position, run in trace.runs.items()
    ]
    assert len(runs) > 40 and {run for _, _, run in runs} == {1, 2, 3, 4}
    assert runs == [(rid, at, accepted(rid, at, scripts[rid].accept)) for rid, at, _ in runs]


def _by_qid(traces: Traces) -> list[RequestTrace]:
    return [trace for _, trace in sorted(traces.of.items())]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_turn_launches_at_most_once_and_overlap_delays_the_result_by_a_turn(path: Path) -> None:
    """A batch is launched in the turn in which it is scheduled. Without overlap its result comes in the same turn."""
    recording = hdf5.load(path)
    kinds, refs = recording.events.kind, recording.events.ref
    turn = np.array(loop_turns(recording))
    assert turn[0] == 0 and set(np.diff(turn).tolist()) <= {0, 1}
    launched, answered = (
        dict(
            zip(
                table.launch[refs[kinds == kind]].tolist(),
                turn[kinds == kind].tolist(),
                strict=True,
            )
        )
        for kind, table in ((Kind.LAUNCH, recording.launches), (Kind.RESULT, recording.results))
    )
    assert len(set(launched.values())) == len(launched) and len(set(answered.values())) == len(
        answered
    )
    scheduled = np.flatnonzero(np.isin(kinds, (Kind.EXTEND, Kind.PREPARE)))
    launches = np.flatnonzero(kinds == Kind.LAUNCH)
    scheduled = scheduled[scheduled < launches[-1]]
    next_launch = launches[np.searchsorted(launches, scheduled)]
    assert len(scheduled) > 3 and np.array_equal(turn[scheduled], turn[next_launch])
    later = {answered[launch] - launched[launch] for launch in answered if launch in launched}
    assert not later or min(later) == (1 if recording.run.overlap else 0)


def test_a_control_that_occurs_twice_takes_two_turns() -> None:
    """A step of a scenario sends each message at most once. Synthetic: every control of a recording is doubled."""
    recording = hdf5.load(WEIGHTS)
    events, controls = recording.events, recording.controls
    twice = np.repeat(np.arange(len(events.kind)), np.where(events.kind == Kind.CONTROL, 2, 1))
    doubled = {field.name: getattr(events, field.name)[twice] for field in fields(events)}
    is_control = doubled["kind"] == Kind.CONTROL
    doubled["ref"][is_control] = np.arange(is_control.sum())
    more = {field.name: np.repeat(getattr(controls, field.name), 2) for field in fields(controls)}
    made = replace(recording, events=Events(**doubled), controls=Controls(**more))
    turn = np.array(loop_turns(made))[is_control]
    told = list(zip(turn.tolist(), more["act"].tolist(), strict=True))
    assert len(set(told)) == len(told) and turn[-1] > len(controls.act)


def test_a_gap_in_the_middle_is_refused() -> None:
    recording = hdf5.load(WEIGHTS)
    with pytest.raises(RigError, match="events are missing in the middle"):
        reenactment(without(recording, 300, 340), "x")


def test_request_ids_that_would_play_differently_are_renamed() -> None:
    """An id used twice, an id whose abort would hit another request, and an id whose script has the stop token earlier."""
    early = next(
        n for n in range(999) if token(f"r{n}", 30) in [token(f"r{n}", p) for p in range(30)]
    )
    rids = ["a", "a", "b", "b1", "c", "c1", f"r{early}", ""]
    traces = Traces({qid: RequestTrace(arrival=0, end=9) for qid in range(len(rids))})
    traces.of[2].abort_at = traces.of[4].abort_at = 5
    traces.of[5].abort_at = 5  # this one was aborted as well
    traces.of[6].reason, traces.of[6].length = Reason.STOP_TOKEN, 31
    names = distinct(rids, traces)
    assert names[:6] == ["a", "a~1", "b~", "b1", "c", "c1"] and len(set(names)) == len(names)
    assert names[7] == "no-id"
    assert list(aborted_with_others(names, traces)) == [5]  # the abort of c hits it
    assert names[6] == f"r{early}-eos30"
    assert token(names[6], 30) not in [token(names[6], position) for position in range(30)]


@pytest.mark.parametrize(
    ("args", "pool", "running"),
    [
        ({"max_total_num_tokens": 900, "max_running_requests": 7}, 900, 7),
        (
            {
                "max_total_tokens": 900,
                "scheduler_max_running_requests": 3,
                "max_running_requests": 7,
            },
            900,
            3,
        ),
        ({"max_running_requests": 7, "enable_dp_attention": True}, None, 3),
        ({"max_total_num_tokens": 1 << 30}, 1 << 18, None),
    ],
)
def test_pool_and_batch_limit_are_as_recorded(
    args: dict[str, JsonScalar], pool: int | None, running: int | None
) -> None:
    """A pool that no request could fill is cut, but stays large enough for the limit of every request."""
    recording = hdf5.load(WEIGHTS)
    again = reenactment(
        replace(recording, run=replace(recording.run, server_args=args, dp_size=2)), "x"
    )
    if pool is None:
        pool = sum(recording.requests.origin_len) + sum(recording.requests.max_new_tokens)
        assert again.scenario.pool_tokens >= pool
        assert any("the size of the pool" in note for note in again.notes)
    else:
        assert again.scenario.pool_tokens == pool
    assert again.scenario.max_running == (running or len(recording.rids))


def test_a_source_tree_counts_as_the_release_it_names_or_else_the_newest(tmp_path: Path) -> None:
    scheduler = tmp_path / "python/sglang/srt/managers/scheduler.py"
    with pytest.raises(RigError, match=r"no sglang found\. Expected the folder sglang/srt"):
        find_release(f"{tmp_path}/")
    scheduler.parent.mkdir(parents=True)
    scheduler.touch()
    assert find_release(str(tmp_path)) == Release(RELEASES[-1], tmp_path / "python", True)
    command = ["--sglang", f"{tmp_path}/", "--events", f"{tmp_path}/no/x"]  # refused
    said = CliRunner().invoke(main, command).output
    assert f"{tmp_path}/ does not say its release; assuming {RELEASES[-1]}" in said
    (tmp_path / "python/sglang/_version.py").write_text("__version__ = version = '0.5.12'\n")
    found = find_release(f"{tmp_path}/python")
    assert found == Release("0.5.12", tmp_path / "python")
    (tmp_path / "python/sglang/_version.py").write_text("__version__ = version = '0.6.1.dev3'\n")
    assert find_release(str(tmp_path)).version == RELEASES[-1]
