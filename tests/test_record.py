"""`specdiff record` on the real scheduler of several releases."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from children import EVERYTHING, VERSIONS, rig
from recorded import check_pairing, record
from specdiff.fixtures.rig.release import RELEASES, find_release
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import NONE32, NONE64, Kind, Mode

pytestmark = pytest.mark.live


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ("0.5.10", "0.5.23"))
def test_a_release_is_recorded_whole_and_behaves_as_without_us(
    version: str, tmp_path: Path
) -> None:
    command = rig(version, "random", "--seed", "1")
    plain, recorded = tmp_path / "plain", tmp_path / "recorded"
    subprocess.run([*command, "--events", plain], check=True, capture_output=True)
    recording, said = record(tmp_path / "out", [*command, "--events", str(recorded)])
    assert recorded.read_text() == plain.read_text()
    assert "200 requests" in said and "0 dropped" in said

    run, stats = recording.run, recording.stats
    assert (run.sglang_version, run.books) == (version, version)
    assert run.spec_v2 and run.overlap and run.experts_capturer
    assert [site.name for site in run.sites if site.essential and not site.attached] == []
    assert all(site.ast_hash for site in run.sites if site.attached)
    assert stats is not None
    assert (stats.exceptions, stats.first_exception, stats.dropped) == (0, None, 0)
    assert stats.closed and stats.events == len(recording.events.kind)
    assert stats.steps_measured == (recording.results.mode == Mode.DECODE).sum() > 0
    assert stats.prefill_ns_p50 and stats.step_ns_p50
    assert recording.damage is None
    check_pairing(recording)
    check_values(recording)
    check_output_lens(recording)


def check_values(recording: Recording) -> None:
    """Check what holds in every release, whatever its bugs."""
    rows, decode = recording.result_rows, recording.results.mode == Mode.DECODE
    of_decode = np.repeat(decode, recording.results.num_rows)
    assert (rows.accept_len[of_decode] >= 1).all()
    assert (rows.num_emitted[of_decode] == rows.accept_len[of_decode]).all()  # no grammar here
    assert (rows.accept_len[~of_decode] == NONE32).all()
    stale = (rows.finished == 1) | (rows.is_retracted == 1)
    assert stale[of_decode].sum() > 20
    live = of_decode & ~stale
    grown = rows.committed_after[live] - rows.committed_before[live]
    assert set((rows.accept_len[live] - grown).tolist()) <= {0, 1}  # 1 if a slot was claimed before
    assert (recording.results.stride[decode] == (4 if has_stride(recording) else NONE64)).all()
    assert (recording.results.num_tokens[decode] == 4 * recording.results.num_rows[decode]).all()
    prepares = recording.prepares
    true = prepares.device_sum != NONE64
    assert true.all()  # recorded because this server runs on a CPU
    finishes = recording.finishes
    asked = finishes.experts_state == 1
    assert asked.sum() > 50
    assert (finishes.experts_stored[asked] == finishes.experts_rows[asked]).all()
    assert (finishes.experts_start[asked] >= 0).all()
    assert recording.experts.dtype == np.uint8
    kinds = {Kind(kind) for kind in np.unique(recording.events.kind)}
    elsewhere = {Kind.GAP, Kind.SEED, Kind.SESSION_SAVE, Kind.SESSION_RESTORE, Kind.CONTROL}
    if not recording.run.weight_versions:  # this release does not label tokens with weights
        elsewhere |= {Kind.WEIGHT_SPAN}
    assert kinds == set(Kind) - elsewhere
    assert len(set(recording.rids)) == len(recording.rids) == 200


def check_output_lens(recording: Recording) -> None:
    """Check that every live result of a request starts where its previous one ended."""
    rows, expected = recording.result_rows, dict.fromkeys(range(len(recording.rids)), 0)
    for i, qid in enumerate(rows.qid.tolist()):
        if rows.finished[i] or rows.is_retracted[i]:
            continue
        assert rows.output_len[i] == expected[qid]
        emitted = rows.num_emitted[i]
        expected[qid] += 1 if emitted == NONE32 else int(emitted)
    finishes = recording.finishes
    for qid, output_len in zip(finishes.qid.tolist(), finishes.output_len.tolist(), strict=True):
        assert output_len == expected[qid]


def has_stride(recording: Recording) -> bool:
    return RELEASES.index(recording.run.sglang_version) >= RELEASES.index("0.5.12")


def test_indexer_rows_are_recorded_with_their_finish(tmp_path: Path) -> None:
    recording, _ = record(tmp_path / "out", rig("0.5.13", "indexer-topk"))
    finishes = recording.finishes
    assert (finishes.indexer_state == 1).all()
    assert (finishes.indexer_stored == finishes.indexer_rows).all()
    assert len(recording.indexer) == finishes.indexer_rows.sum() > 0
    assert recording.run.indexer_capturer


def test_prompts_are_not_recorded(tmp_path: Path) -> None:
    recording, _ = record(tmp_path / "out", rig("0.5.13", "stale-stop"))
    assert not any("input_ids" in detail for detail in recording.details)
    assert all('"origin_len"' in detail for detail in recording.details)


def test_a_recorded_play_leaves_no_temporary_file(tmp_path: Path) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    command = ["env", f"TMPDIR={temporary}", *rig("0.5.13", "stale-stop")]
    record(tmp_path / "out", command)
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_a_server_with_changed_books_is_recorded_as_unknown(tmp_path: Path) -> None:
    """A fork or a newer release has another resolve function but the same hook sites."""
    root = find_release("0.5.13").root
    tree = tmp_path / "tree" / "sglang"
    (tmp_path / "tree").mkdir()
    subprocess.run(["cp", "-a", str(root / "sglang"), str(tree)], check=True)
    processor = tree / "srt/managers/scheduler_components/batch_result_processor.py"
    text = processor.read_text()
    changed = text.replace("accept_lens[i] - 1\n", "accept_lens[i] - 1 + 0\n", 1)
    assert changed != text
    processor.write_text(changed)
    (tmp_path / "cache" / "sglang").mkdir(parents=True)
    (tmp_path / "cache" / "sglang" / "0.5.13").symlink_to(tmp_path / "tree")
    command = ["env", f"SPECDIFF_CACHE={tmp_path / 'cache'}", *rig("0.5.13", "stale-stop")]
    recording, _ = record(tmp_path / "out", command)
    assert recording.run.books == "unknown"
    assert len(recording.events.kind) > 0
