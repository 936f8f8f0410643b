"""Draft algorithms other than EAGLE, and pages: lifted equals observed.

Each algorithm is matched with sets of fixes on its own.
"""

from __future__ import annotations

import ast
import dataclasses
from enum import Enum, IntEnum, auto

import pytest

from children import on_demand
from gaps import without
from lifting import Changed, against_observed, bundled_recording, compiled, release
from recorded import RigRecorder
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.match import match_apart
from specdiff.replay.lift.missing import CannotRunError, Missing
from specdiff.replay.lift.releases import RELEASES
from specdiff.replay.lift.roles import Role
from specdiff.replay.lift.standins.server_args import Algorithm
from specdiff.replay.quantity import Quantity as Q

DFLASH, TREE = "0.5.14-dflash", "0.5.13-tree-on-pages"
SEED = 5
ABSENT = {Q.INDEXER_TOPK, Q.SESSION_COMMITTED}  # a plain server has neither


def lifted(version: str) -> Program:
    with release(version) as source:
        return compiled(source)


@pytest.mark.parametrize(
    ("version", "eagle", "dflash"),
    [
        ("0.5.13", "fixed", None),
        ("0.5.14", "fixed", "no set of fixes, in seq_lens_sum"),
        ("0.5.15", "fixed-22651", "fixed-22651"),
    ],
)
def test_each_algorithm_is_matched_on_its_own(version: str, eagle: str, dflash: str | None) -> None:
    """Only in 0.5.14, DFLASH's lengths on the host lag those on the device."""
    recordings = [Columns(bundled_recording(name)) for name in (DFLASH, "0.5.12-merge-filter")]
    recordings += [Columns(bundled_recording("0.5.23-random"))]
    found = {name: str(one) for name, one in match_apart(recordings, lifted(version)).items()}
    said = {"EAGLE": str(spec.parse(eagle))}
    if dflash is not None:
        said["DFLASH"] = dflash
    assert found == said
    assert next(iter(found)) == "EAGLE"


def test_a_release_without_the_algorithm_cannot_run_its_recording() -> None:
    with pytest.raises(CannotRunError, match=r"0\.5\.13 has no prepare for DFLASH"):
        ledger_of(Columns(bundled_recording(DFLASH)), lifted("0.5.13"), "lifted")


def test_a_tree_on_pages_reserves_whole_pages_for_each_branch() -> None:
    """Without that rule, lifted no longer equals what that server allocated."""
    path = "srt/mem_cache/common.py"
    old, new = "if page_size == 1 or spec_topk == 1:", "if True:"
    with release("0.5.13") as source:
        changed = compiled(Changed(source, path, "get_alloc_len_per_decode", old, new))
    found = against_observed(bundled_recording(TREE), changed)
    assert {q for q, one in found.items() if one.differs.any()} == {Q.KV_ALLOCATED_LEN}


@pytest.mark.parametrize("version", ["0.5.13", "0.5.23"])
def test_a_tree_on_pages_can_be_replayed_after_a_gap(version: str) -> None:
    """A prepare compares the lengths, of which some are unknown then, with the length of a row."""
    recording, program = bundled_recording(TREE), lifted(version)
    middle = len(recording.events.kind) // 2
    ledger = ledger_of(Columns(without(recording, middle, middle + 9)), program, "lifted")
    captured = ledger[Q.KV_ALLOCATED_LEN].captured
    assert captured.any() and not captured.all()


def test_the_lagging_sums_come_from_the_branch_for_dflash() -> None:
    """Without the branch for DFLASH, lifted no longer equals what that server computed."""
    path = "srt/managers/overlap_utils.py"
    old, new = "if self.spec_algo.is_dflash():", "if False:"
    with release("0.5.14") as source:
        changed = compiled(Changed(source, path, "resolve_seq_lens_cpu", old, new))
    found = against_observed(bundled_recording(DFLASH), changed)
    assert {quantity for quantity, one in found.items() if one.differs.any()} == {Q.SEQ_LENS_SUM}


@pytest.mark.parametrize("version", RELEASES)
def test_the_stand_in_of_the_algorithm_answers_as_the_release_does(version: str) -> None:
    """Or it stops the path. The questions about one algorithm, or about none, are all answered."""
    with release(version) as source:
        module = ast.parse(source.read("srt/speculative/spec_info.py") or "")
    (real,) = (
        node
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == "SpeculativeAlgorithm"
    )
    kept: list[ast.stmt] = [node for node in real.body if isinstance(node, ast.Assign)]
    asked = [
        node
        for node in real.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("is_")
    ]
    real.body, real.decorator_list = [*kept, *asked], []
    names = {"Enum": Enum, "IntEnum": IntEnum, "auto": auto}
    exec(compile(ast.Module([real], []), "spec_info.py", "exec"), names)  # noqa: S102
    answered = 0
    for member in names["SpeculativeAlgorithm"]:  # type: ignore[attr-defined]
        for question in asked:
            answer = getattr(Algorithm(member.name), question.name)()
            assert answer == getattr(member, question.name)(), (member.name, question.name)
            answered += 1
    assert answered > 20
    with pytest.raises(Missing, match=r"spec_algorithm\.is_another"):
        Algorithm("EAGLE").is_another()


@pytest.mark.parametrize(
    ("version", "place"),
    [
        ("0.5.13", None),  # spec v1
        ("0.5.14", "eagle_info_v2.py:EagleDraftInputV2Mixin.prepare_for_decode"),  # inherited
        ("0.5.23", "eagle_utils.py:eagle_prepare_for_decode"),
    ],
)
def test_the_prepare_function_of_ngram_is_found(version: str, place: str | None) -> None:
    found = lifted(version).surface.roles.get(Role.PREPARE_NGRAM.value)
    assert found == (place and f"srt/speculative/{place}")


def equal(recording: Columns, made: Program) -> None:
    for quantity, found in against_observed(recording.recording, made).items():
        assert not found.differs.any(), quantity
        if quantity not in ABSENT:
            assert found.num_compared == len(found.old.cells) > 0, quantity


@pytest.mark.parametrize("algorithm", [*on_demand("DFLASH"), "DSPARK"])
def test_drafts_of_blocks_lifted_equals_observed(algorithm: str, record: RigRecorder) -> None:
    recording = record("0.5.23", "random", SEED, "--algorithm", algorithm, "--requests", "60")
    assert recording.run.spec_algorithm == algorithm
    equal(Columns(recording), lifted("0.5.23"))
    path, old = "srt/speculative/dflash_info_v2.py", "reserve = 2 * block_size"
    with release("0.5.23") as source:
        changed = compiled(Changed(source, path, "prepare_for_decode", old, "reserve = block_size"))
    assert against_observed(recording, changed)[Q.KV_ALLOCATED_LEN].differs.any()


@pytest.mark.parametrize("version", [*on_demand("0.5.11"), "0.5.23"])
def test_pages_of_16_lifted_equals_observed(version: str, record: RigRecorder) -> None:
    recording = record(version, "random", SEED, "--page-size", "16", "--requests", "60")
    assert recording.run.page_size == 16
    equal(Columns(recording), lifted(version))
    # From 0.5.16 on a prepare allocates whole pages.
    one = dataclasses.replace(recording, run=dataclasses.replace(recording.run, page_size=1))
    found = against_observed(one, lifted(version))[Q.KV_ALLOCATED_LEN]
    assert bool(found.differs.any()) == (version == "0.5.23")
