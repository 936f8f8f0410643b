"""Lifted sglang functions, replayed over a recording, equal what the recorded server computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from children import on_demand
from gaps import without
from lifting import Changed, against_observed, bundled_recording, compiled, release
from recorded import RigRecorder
from specdiff.cli.inputs import bundled
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.lift.engine import replay
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.lift.match import match, match_apart
from specdiff.replay.lift.missing import CannotRunError
from specdiff.replay.lift.tracks import UNSET, TrackKey
from specdiff.replay.quantity import Quantity as Q
from test_fidelity import ERAS, SEED, fixes_of

BUNDLED = sorted(path.stem for path in bundled().glob("*.h5"))
OTHERS = {"0.5.14-dflash"}  # not EAGLE: see test_lift_algorithms.py


@pytest.mark.parametrize("version", ["0.5.10", *on_demand(*ERAS)])
def test_a_live_recording_equals_the_release_that_made_it(
    version: str, record: RigRecorder
) -> None:
    with release(version) as source:
        made = compiled(source)
    assert made.surface.unknown == ()
    for quantity, difference in against_observed(record(version, "random", SEED), made).items():
        assert not difference.differs.any(), quantity
        if quantity not in (Q.INDEXER_TOPK, Q.SESSION_COMMITTED):  # this server has neither
            assert difference.num_compared == len(difference.old.cells) > 0, quantity


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_recording_equals_the_release_that_made_it(name: str) -> None:
    recording = bundled_recording(name)
    with release(recording.run.sglang_version) as source:
        found = against_observed(recording, compiled(source))
    assert not [q for q, difference in found.items() if difference.differs.any()]
    compared = {q for q, difference in found.items() if difference.num_compared}
    assert compared >= {Q.KV_COMMITTED_LEN, Q.SEQ_LENS_SUM, Q.SPEC_VERIFY_CT}
    if "experts" in name or "random" in name:
        assert Q.ROUTED_EXPERTS in compared
    assert (Q.INDEXER_TOPK in compared) == ("indexer" in name)


@pytest.mark.parametrize("version", ERAS)
def test_matching_finds_the_set_of_fixes_that_equals_a_release(version: str) -> None:
    """The two engines share no rule and agree on every value of every bundled recording that the release can run."""
    names = [name for name in BUNDLED if name not in OTHERS]
    with release(version) as source:
        found = match_apart([Columns(bundled_recording(name)) for name in names], compiled(source))[
            "EAGLE"
        ]
    assert found.sets == (fixes_of(version),)
    assert str(found) == str(spec.parse(ERAS[version]))
    assert found.num_compared > 20_000


def test_if_no_set_of_fixes_equals_a_source_the_quantity_is_named() -> None:
    path = "srt/state_capturer/base.py"
    with release("0.5.23") as source:
        made = compiled(Changed(source, path, "get_topk", ": seqlen - 1]", ": seqlen]"))
    found = match([Columns(bundled_recording("0.5.23-random"))], made)
    assert found.sets == ()
    assert found.unmatched == (Q.ROUTED_EXPERTS,)
    assert str(found) == "no set of fixes, in routed_experts"


@pytest.mark.parametrize("version", ERAS)
def test_lifted_books_read_no_observed_books(version: str) -> None:
    """Changing what the server computed leaves the lifted ledger as it was."""
    recording = bundled_recording("0.5.23-random")
    with release(version) as source:
        made = compiled(source)
    plain, perturbed = (
        ledger_of(Columns(one), made, "lifted") for one in (recording, _perturbed(recording))
    )
    for quantity in Q:
        assert torch.equal(plain[quantity].values, perturbed[quantity].values), quantity
        assert torch.equal(plain[quantity].captured, perturbed[quantity].captured), quantity


def _perturbed(recording: Recording) -> Recording:
    books = {
        "extends": ("seq_lens_sum",),
        "extend_rows": ("committed",),
        "prepares": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
        "prepare_rows": ("committed_before", "committed_after", "allocated_after"),
        "launches": ("seq_lens_sum_entry", "seq_lens_sum"),
        "results": ("batch_accepted_drafts",),
        "result_rows": (
            "committed_before",
            "committed_after",
            "spec_verify_ct",
            "spec_accepted_drafts",
        ),
        "filters": ("seq_lens_sum_before", "seq_lens_sum_after", "device_sum"),
        "merges": ("seq_lens_sum_before", "other_seq_lens_sum", "seq_lens_sum_after"),
        "retracts": ("committed_before", "committed_after"),
        "finishes": ("committed", "experts_rows", "experts_start"),
        "releases": ("committed", "committed_after"),
    }
    changed = {}
    for name, columns in books.items():
        table = getattr(recording, name)
        values = {column: _shifted(getattr(table, column)) for column in columns}
        changed[name] = dataclasses.replace(table, **values)
    return dataclasses.replace(recording, **changed)


def _shifted(values: np.ndarray) -> np.ndarray:
    absent = (values == NONE64) if values.dtype == np.int64 else (values == NONE32)
    return np.where(absent, values, values + 7)


@pytest.mark.parametrize("version", ["0.5.10", "0.5.23"])
def test_values_that_a_gap_hides_are_not_captured_rather_than_wrong(version: str) -> None:
    recording = bundled_recording(f"{version}-random")
    with release(version) as source:
        made = compiled(source)
    size = len(recording.events.kind)
    lost = 0
    for start in range(0, size - 12, max(1, size // 23)):
        for quantity, difference in against_observed(
            without(recording, start, start + 12), made
        ).items():
            assert not difference.differs.any(), (start, quantity)
            lost += int(difference.not_captured.sum()) if quantity is Q.KV_COMMITTED_LEN else 0
    assert lost > 0


def test_after_a_gap_books_are_known_again_from_an_extend_on() -> None:
    recording = bundled_recording("0.5.23-random")
    second = recording.event_of(Kind.EXTEND)[1]
    with release("0.5.23") as source:
        found = against_observed(without(recording, 0, int(second)), compiled(source))
    captured = ~found[Q.KV_COMMITTED_LEN].not_captured
    assert captured.any() and not captured.all()


def test_a_timeline_under_a_release_equals_that_under_its_set_of_fixes() -> None:
    from specdiff.replay.timeline import timelines

    recording = bundled_recording("0.5.10-random")
    paths = [spec.parse(text) for text in ("sglang==0.5.12", ERAS["0.5.12"], "observed")]
    parted = 0
    for rid in dict.fromkeys(recording.rids):
        for timeline in timelines(recording, rid, paths):
            for entry in timeline.entries:
                one, two, server = entry.committed
                assert one == two
                parted += one != server
    assert parted > 100


def test_a_grammar_cuts_runs_at_the_recorded_length() -> None:
    """From 0.5.14 on, the lifted functions walk the grammar. The rules take the recorded length after the cut."""
    recording = _with_grammar(bundled_recording("0.5.23-random"))
    columns = Columns(recording)
    with release("0.5.23") as source:
        lifted = ledger_of(columns, compiled(source), "lifted")
    for quantity in (Q.KV_COMMITTED_LEN, Q.KV_COMMITTED_LEN_SETTLED, Q.SPEC_VERIFY_CT):
        rules = Toggles(columns)(fixes_of("0.5.23"))[quantity]
        assert lifted[quantity].captured.all()
        assert torch.equal(lifted[quantity].values, rules.values), quantity


def _with_grammar(recording: Recording) -> Recording:
    """Give every request a grammar that ends each run one token early, but leaves at least one token."""
    rows, requests = recording.result_rows, recording.requests
    cut = np.where(rows.accept_len == NONE32, rows.num_emitted, np.maximum(1, rows.accept_len - 1))
    assert (cut < rows.num_emitted).any()
    return dataclasses.replace(
        recording,
        requests=dataclasses.replace(requests, has_grammar=np.ones_like(requests.has_grammar)),
        result_rows=dataclasses.replace(rows, num_emitted=cut.astype(np.int32)),
    )


def test_a_path_cannot_run_an_algorithm_that_was_not_lifted() -> None:
    recording = bundled_recording("0.5.23-random")
    other = dataclasses.replace(
        recording, run=dataclasses.replace(recording.run, spec_algorithm="UNO")
    )
    with release("0.5.14") as source:
        made = compiled(source)
    with pytest.raises(
        CannotRunError,
        match=r"no prepare for UNO at any known place; it has one for EAGLE, .*DFLASH",
    ):
        ledger_of(Columns(other), made, "lifted")


def test_without_overlap_the_older_books_cannot_compute_sums_but_all_lengths() -> None:
    recording = bundled_recording("0.5.10-random")
    other = dataclasses.replace(recording, run=dataclasses.replace(recording.run, overlap=False))
    with release("0.5.10") as source:
        found = against_observed(other, compiled(source))
    assert found[Q.SEQ_LENS_SUM].not_captured.all()
    assert not found[Q.KV_COMMITTED_LEN].not_captured.any()


def test_a_renamed_counter_is_not_captured_rather_than_zero() -> None:
    path = "srt/managers/scheduler_components/batch_result_processor.py"
    old, new = "req.spec_verify_ct += 1", "req.num_verify_steps = 1"
    with release("0.5.23") as source:
        made = compiled(Changed(source, path, "_resolve_spec_v2_tokens", old, new))
    found = against_observed(bundled_recording("0.5.23-random"), made)
    assert found[Q.SPEC_VERIFY_CT].not_captured.all()
    assert not found[Q.SPEC_ACCEPTED_DRAFTS].not_captured.any()


def test_without_recorded_tokens_only_the_finish_is_not_captured() -> None:
    recording = bundled_recording("0.5.23-random")
    results = dataclasses.replace(
        recording.results, num_tokens=np.zeros_like(recording.results.num_tokens)
    )
    blind = dataclasses.replace(recording, results=results, tokens=recording.tokens[:0])
    with release("0.5.23") as source:
        found = against_observed(blind, compiled(source))
    assert found[Q.FINISH].not_captured.all()
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        if quantity not in (Q.FINISH, Q.INDEXER_TOPK):
            assert not difference.not_captured.any(), quantity


@pytest.mark.parametrize("version", ["0.5.12", "0.5.23"])
@pytest.mark.parametrize("name", BUNDLED)
def test_replaying_one_quantity_alone_gives_the_same_values(name: str, version: str) -> None:
    """Also the values that are computed on the way equal those of a replay of all quantities."""
    recording = bundled_recording(name)
    with release(version) as source:
        made = compiled(source)
    try:
        whole = replay(made, recording).values
    except CannotRunError:  # 0.5.12 has no DFLASH and no mixed chunk
        pytest.skip(f"{version} cannot run {name}")
    for quantity in (
        Q.KV_COMMITTED_LEN,
        Q.KV_COMMITTED_LEN_SETTLED,
        Q.SEQ_LENS_SUM,
        Q.FINISH,
        Q.ROUTED_EXPERTS,
        Q.SPEC_HISTOGRAM,
    ):
        alone = replay(made, recording, (quantity,)).values
        assert {key for key in whole if key.quantity is quantity} <= alone.keys()
        other = [key for key, values in alone.items() if values != whole[key]]
        assert not other, (quantity, other)


def test_a_prepare_that_reads_batch_lengths_computes_nothing_without_the_sums() -> None:
    """No release has such a prepare. If one came, a replay without sums must not compute something else."""
    path, old = "srt/speculative/eagle_utils.py", "r.decode_batch_idx += 1"
    new = "r.kv.kv_committed_len += int(batch.seq_lens.max())"
    with release("0.5.23") as source:
        made = compiled(Changed(source, path, "eagle_prepare_for_decode", old, new))
    recording, key = (
        bundled_recording("0.5.23-random"),
        TrackKey(Q.KV_COMMITTED_LEN, Kind.PREPARE, True),
    )
    whole, alone = (
        replay(made, recording, wanted).values[key] for wanted in (tuple(Q), (Q.KV_COMMITTED_LEN,))
    )
    assert UNSET not in whole and set(alone) == {UNSET}
