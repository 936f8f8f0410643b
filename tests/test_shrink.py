"""Shrinking recordings: the smallest part that still shows the divergence or the breach of a law."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest

from cuts import SOURCE
from lifting import bundled_recording, files_of, write_tree
from specdiff.cli import report_shrink
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, INTERRUPTED, NO_VERDICT, SAME, USAGE, run
from specdiff.recorders import hdf5
from specdiff.recorders.pseudonyms import contents
from specdiff.recorders.recording import Recording
from specdiff.recorders.redact import redacted
from specdiff.recorders.schema import Kind
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.laws.check import every_breach
from specdiff.replay.ledger import Ledger
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity
from specdiff.replay.shrink.breach import LawQuestion
from specdiff.replay.shrink.shrink import shrink_to_divergence
from specdiff.replay.shrink.shrinking import Shrinking, ShrinkProgress
from specdiff.replay.shrink.symptom import Question
from specdiff.replay.verdict import replay

MIX = "0.5.10-random"
SETTLED, ROWS = "kv_committed_len_settled", "routed_experts"
# Fix -> the release before it, the release that has it, a quantity. 23456 and 24851 came with the same release.
FIXES = {
    22651: ("sglang==0.5.10", "sglang==0.5.11", SETTLED),
    23456: ("sglang==0.5.11", "sglang==0.5.12", SETTLED),
    24851: ("sglang==0.5.11", "sglang==0.5.12", ROWS),
    26126: ("sglang==0.5.12", "sglang==0.5.13", ROWS),
}


def shrinking(name: str, old: str, new: str, quantity: str) -> tuple[Shrinking, Question]:
    question = Question(spec.parse(old), spec.parse(new), Quantity(quantity))
    recording = bundled_recording(name)
    found = question(recording)
    assert found is not None
    made = Shrinking(recording, SOURCE, question, found, lambda _: None)
    made.run()
    return made, question


@pytest.mark.parametrize(
    ("name", "old", "new", "quantity", "requests"),
    [
        (MIX, "old", "fixed", SETTLED, 1),
        (MIX, "old", "old+22651", SETTLED, 1),
        (MIX, "old", "fixed", "kv_committed_len", 1),
        (MIX, "old", "fixed", "seq_lens_sum", 2),
        (MIX, "observed", "sglang==0.5.23", "spec_histogram", 1),
        # The server's own sums are over all its requests, so none can go. Steps can go as long as the true sum is known.
        ("0.5.10-stale-stop", "observed", "fixed-22651", "seq_lens_sum", 8),
        ("0.5.15-session-hole", "observed", "sglang==0.5.14", "session_committed", 1),
    ],
)
def test_a_shrunk_recording_is_minimal_in_requests_and_steps(
    name: str, old: str, new: str, quantity: str, requests: int
) -> None:
    made, question = shrinking(name, old, new, quantity)
    left = made.progress()
    assert left.num_requests == requests and left.num_steps <= 13
    found = question(made.recording())
    assert found is not None and found.symptom == made.found.symptom
    for qid in made.best.requests.nonzero()[0].tolist():
        assert not made.shows(made.without_request(qid))
    for step in made.steps(made.best):
        assert not made.shows(made.without_step(step))


@pytest.mark.parametrize("fix", FIXES)
def test_a_random_mix_shrinks_to_a_test_that_only_the_fix_passes(
    fix: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, quantity = FIXES[fix]
    source, small, test = bundled() / f"{MIX}.h5", tmp_path / "small.h5", tmp_path / "test_small.py"
    paths = ["--old", old, "--fixed", new, "--quantity", quantity]
    assert run(["shrink", str(source), "-o", str(small), *paths]) == SAME
    assert run(["export", str(small), "--format", "pytest", "-o", str(test), *paths]) == SAME
    whole, shrunk = hdf5.load(source), hdf5.load(small)
    assert small.stat().st_size < 11_000 and len(shrunk.rids) == 1
    (step,) = shrunk.derived
    assert step.source == hashlib.sha256(source.read_bytes()).hexdigest()
    assert step.requests_left_out == 79 and step.description.startswith("1 of 80 requests, ")
    assert step.tokens_replaced and shrunk.tokens_replaced == "replaced by shrink"
    assert not set(shrunk.rids) & set(whole.rids) and shrunk.run.command == ()
    before, after = (
        replay(r, spec.parse(old), spec.parse(new), [Quantity(quantity)]).quantities[0].first
        for r in (whole, shrunk)
    )
    assert before is not None and after is not None and (frozenset({fix}),) == after.fixes
    assert (before.kind, before.step, before.old, before.new, before.cause, before.fixes) == (
        (after.kind, after.step, after.old, after.new, after.cause, after.fixes)
    )
    text = test.read_text()
    assert f"pull/{fix}" in text and "sglang 0.5.10" in text and f"step {after.step}" in text
    for path, passes in ((old, False), (new, True)):
        monkeypatch.setenv("SGLANG", path)
        tests = runpy.run_path(str(test))
        for name in ("test_where_it_went_wrong", "test_every_value"):
            if passes:
                tests[name]()
            else:
                with pytest.raises(AssertionError):
                    tests[name]()


def test_keep_tokens_keeps_tokens_and_request_ids(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    assert run(["shrink", str(bundled() / f"{MIX}.h5"), "-o", str(out), "--keep-tokens"]) == SAME
    whole, shrunk = bundled_recording(MIX), hdf5.load(out)
    assert shrunk.rids == ("r1-3",) and shrunk.run.command == whole.run.command
    qid = whole.rids.index("r1-3")
    assert shrunk.details == (whole.details[qid],)
    assert len(set(shrunk.tokens.tolist()) - {0}) > 2
    assert not shrunk.derived[-1].tokens_replaced and shrunk.tokens_replaced is None


def test_the_path_of_a_source_tree_does_not_get_into_the_recording(tmp_path: Path) -> None:
    """A path in the `derived` text of an older file is replaced, too."""
    tree, small = write_tree(tmp_path / "alice", files_of("0.5.11")), tmp_path / "x.h5"
    source = bundled() / "0.5.12-stale-stop.h5"
    paths = ["--old", str(tree), "--fixed", "fixed", "--quantity", SETTLED]
    assert run(["shrink", str(source), "-o", str(small), *paths]) == SAME
    (step,) = hdf5.load(small).derived
    assert (
        "; a source tree and fixed first part over" in step.description
        and "alice" not in step.description
    )

    told = dataclasses.replace(step, description=f"{tree} and fixed first part")
    recording = dataclasses.replace(hdf5.load(small), derived=(told,))
    assert contents(recording) == ("paths or hosts",)
    again = shrink_to_divergence(
        recording, SOURCE, (spec.OLD, spec.FIXED), None, lambda _: None
    ).recording
    for made in (redacted(recording, SOURCE), again):
        assert made.derived[0].description == "redacted-0 and fixed first part"
        assert len(made.derived) == 2 and not contents(made)


def test_ctrl_c_saves_the_smallest_recording_found_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interrupt comes at the second success. By then the tail and some requests are gone, but not all that could be."""
    # a shell starts `&` jobs with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told: list[ShrinkProgress] = []

    def tell(_: report_shrink.ShrinkReporter, progress: ShrinkProgress) -> None:
        told.append(progress)
        if len(told) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(report_shrink.ShrinkReporter, "__call__", tell)
    out = tmp_path / "x.h5"
    arguments = ["shrink", str(bundled() / f"{MIX}.h5"), "-o", str(out)]
    assert run([*arguments, "--quantity", "seq_lens_sum"]) == INTERRUPTED
    said, left = capsys.readouterr(), hdf5.load(out)
    assert 2 < len(left.rids) < 80 and len(told) == 2
    assert "interrupted" in said.err and f"{told[-1].num_requests} of 80 requests" in said.out
    assert replay(left, spec.OLD, spec.FIXED, [Quantity.SEQ_LENS_SUM]).quantities[0].num_differed


def test_a_log_gets_plain_lines_even_if_color_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI forces color although its log is no terminal. A spinner would fill the log."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    source = str(bundled() / "0.5.11-stale-retract.h5")
    assert run(["shrink", source, "-o", str(tmp_path / "x.h5")]) == SAME
    said = capsys.readouterr().err
    assert said.startswith("specdiff: left: ") and "\x1b" not in said


def test_if_observed_sums_keep_every_request_the_report_names_an_option_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(bundled() / "0.5.12-merge-filter.h5"), tmp_path / "x.h5"
    asked = ["shrink", source, "-o", str(out), "--quantity", "seq_lens_sum", "--force"]
    assert run([*asked, "--old", "observed"]) == SAME
    said = capsys.readouterr().out
    assert "10 of 10 requests" in said and "No request could be removed: the observed sums" in said
    (advice,) = re.findall(r"Use (--old \S+), ", said)
    assert run([*asked, *advice.split()]) == SAME
    said = capsys.readouterr().out
    assert "2 of 10 requests" in said and "No request could be removed" not in said


def test_a_recording_that_cannot_be_shrunk_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_recording: Path
) -> None:
    out = tmp_path / "x.h5"
    arguments = ["shrink", str(real_recording), "-o", str(out)]
    assert run([*arguments, "--old", "fixed"]) == NO_VERDICT
    assert "same, " in capsys.readouterr().err and not out.exists()
    assert run([*arguments, "--quantity", "indexer_topk"]) == NO_VERDICT
    assert run(["shrink", str(tmp_path), "-o", str(out)]) == USAGE
    out.write_text("mine")
    assert run(arguments) == BROKEN and out.read_text() == "mine"
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "law", "requests"),
    [
        ("0.5.23-new-weights", "weights", 1),
        ("0.5.12-experts-overshoot", "trainer", 1),
        ("0.5.11-stale-retract", "stale", 1),
        (MIX, "stale", 1),  # three counts break the law
        ("0.5.15-session-hole", "session", 2),
        ("0.5.12-merge-filter", "sums", 10),  # the server's sums are over all its requests
    ],
)
def test_a_recording_shrunk_to_a_breach_is_minimal(name: str, law: str, requests: int) -> None:
    recording = bundled_recording(name)
    question = LawQuestion(spec.Observed(), law)
    found = question(recording)
    assert found is not None
    made = Shrinking(recording, SOURCE, question, found, lambda _: None)
    made.run()
    left = made.progress()
    assert left.num_requests == requests and left.num_steps <= 8
    first, now = (question.outcome(one).first for one in (recording, made.recording()))
    assert first is not None and now is not None
    assert (now.kind, now.counted) == (first.kind, first.counted)
    assert (now.found > now.high) == (first.found > first.high)
    for qid in made.best.requests.nonzero()[0].tolist():
        assert not made.shows(made.without_request(qid))
    for step in made.steps(made.best):
        assert not made.shows(made.without_step(step))


def test_too_few_and_too_many_are_different_breaches_and_so_are_kinds_of_events() -> None:
    """Synthetic: the first finish that has too many rows gets too few instead."""
    recording = bundled_recording("0.5.12-experts-overshoot")
    question = LawQuestion(spec.Observed(), "rows")
    found = question(recording)
    assert found is not None and found.qid is not None
    rows = recording.finishes.experts_rows.copy()
    rows[recording.finishes.qid == found.qid] = 1
    stored = np.minimum(recording.finishes.experts_stored, rows)
    finishes = dataclasses.replace(recording.finishes, experts_rows=rows, experts_stored=stored)
    experts = recording.experts[: int(stored.sum())]
    few = question(dataclasses.replace(recording, finishes=finishes, experts=experts))
    assert few is not None and (few.event, few.qid) == (found.event, found.qid)
    assert few.symptom != found.symptom
    sums = bundled_recording("0.5.10-random")
    kinds = {breach.kind for law, _, breach in every_breach(*_observed(sums)) if law.name == "sums"}
    assert kinds == {Kind.FILTER, Kind.MERGE}
    shown = LawQuestion(spec.Observed(), "sums")(sums)
    first = LawQuestion(spec.Observed(), "sums").outcome(sums).first
    assert shown is not None and first is not None
    assert repr(first.kind) in repr(shown.symptom)


def _observed(recording: Recording) -> tuple[Columns, Ledger]:
    columns = Columns(recording)
    return columns, observed(columns)


def test_a_recording_shrunk_to_a_breach_is_redacted_and_still_breaks_the_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.h5"
    whole = ["shrink", str(bundled() / "0.5.23-new-weights.h5"), "-o", str(small)]
    assert run([*whole, "--law", "weights"]) == SAME
    said = capsys.readouterr().out
    assert "1 of 24 requests" in said and "mislabelled_tokens = 2, expected 0" in said
    made = hdf5.load(small)
    assert not contents(made) and made.rids == ("request-0",)
    assert "observed first breaks the law weights as it did" in made.derived[-1].description
    assert run(["check", str(small)]) == DIFFERS
    assert "mislabelled_tokens = 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (
            ["--law", "trainer"],
            NO_VERDICT,
            "the law trainer is not broken (it holds in all 12 places)",
        ),
        (["--law", "session"], NO_VERDICT, "is not broken (turn of a streaming session"),
        (["--law", "weight"], USAGE, "no law 'weight'; there are: commit,"),
        (["--law", "weights", "--old", "old"], USAGE, "--old can only be used without --law"),
        (
            ["--law", "weights", "--quantity", "finish"],
            USAGE,
            "--quantity can only be used without --law",
        ),
        (["--path", "observed"], USAGE, "--path can only be used with --law"),
    ],
)
def test_a_law_that_is_not_broken_or_wrong_options_are_refused_with_the_reason(
    more: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.h5"
    source = str(bundled() / "0.5.23-new-weights.h5")
    assert run(["shrink", source, "-o", str(target), *more]) == code
    assert says in capsys.readouterr().err and not target.exists()
