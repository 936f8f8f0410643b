"""Which functions `bisect` blames for a change: those that make it, and none that is innocent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from children import EVERYTHING
from lifting import bundled_recording, files_of, lifted, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import DIFFERS, run
from specdiff.recorders.schema import Mode
from specdiff.replay.bisect.bisection import earliest
from specdiff.replay.bisect.graft import grafted
from specdiff.replay.bisect.inside import role_changes
from specdiff.replay.columns.shared import Columns
from specdiff.replay.lift.open import surface_of
from specdiff.replay.lift.reach import reached
from specdiff.replay.lift.releases import RELEASES
from specdiff.replay.lift.roles import Role
from specdiff.replay.lift.surface import Surface
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import Verdict, compare

_LENGTHS = {
    Role.RESOLVE,
    Role.PREPARE,
    Role.RETRACT,
    Role.TAIL,
    Role.SESSION_TAKE,
    Role.SESSION_SAVE,
    Role.SESSION_RESTORE,
    Role.RELEASE,
}
_COUNTS = {Role.RESOLVE, Role.TAIL, Role.STATISTICS}
# The roles that can change a quantity under EAGLE. The other roles are innocent of it.
TOUCHED_BY = {
    Quantity.KV_COMMITTED_LEN: _LENGTHS,
    Quantity.KV_COMMITTED_LEN_SETTLED: _LENGTHS,
    Quantity.KV_ALLOCATED_LEN: _LENGTHS,
    Quantity.SESSION_COMMITTED: _LENGTHS,
    Quantity.RELEASED_LEN: {*_LENGTHS, Role.COMMIT_LENGTH},
    Quantity.SPEC_VERIFY_CT: _COUNTS,
    Quantity.SPEC_ACCEPTED_DRAFTS: _COUNTS,
    Quantity.SPEC_HISTOGRAM: _COUNTS,
    Quantity.ROUTED_EXPERTS: {Role.EXPERTS, Role.TOPK},
    Quantity.INDEXER_TOPK: {Role.INDEXER, Role.TOPK},
    Quantity.FINISH: {Role.FINISH},
    Quantity.SEQ_LENS_SUM: {
        Role.PREPARE,
        Role.SEQ_LENS,
        Role.FILTER,
        Role.MERGE,
        Role.MIX,
        Role.TAIL_LENS,
    },
}
# Attributes got another name, or moved to another class, between these.
RENAMED = [("0.5.10.post1", "0.5.11"), ("0.5.11", "0.5.12"), ("0.5.18", "0.5.19")]
NEIGHBOURS = list(pairwise(RELEASES)) if EVERYTHING else RENAMED
RECORDINGS = ["0.5.10-random", *(("0.5.15-session-hole", "0.5.23-random") if EVERYTHING else ())]


def surface(version: str) -> Surface:
    return surface_of(lifted(f"sglang=={version}"))


def blamed(columns: Columns, good: str, bad: str, quantity: Quantity) -> list[Role] | None:
    """Return the roles that cause the change by themselves; None if this quantity did not change."""
    ends = lifted(good), lifted(bad)
    result = compare(columns, *ends, (quantity,))
    if result.verdict is not Verdict.DIFFERS:
        return None
    _, first = earliest(result)
    return [
        one.role
        for one in role_changes(columns, *ends, (quantity,), quantity, first.event)
        if one.alone
    ]


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_role_is_blamed_for_a_quantity_that_it_does_not_touch(name: str) -> None:
    """Nor one that the recording never calls, in either direction between neighbouring releases."""
    columns = Columns(bundled_recording(name))
    launches = columns.recording.launches
    uncalled = set() if (launches.mode == Mode.MIXED).any() else {Role.MIX, Role.TAIL_LENS}
    changes = 0
    for pair in NEIGHBOURS:
        for good, bad in (pair, pair[::-1]):
            for quantity in Quantity:
                roles = blamed(columns, f"sglang=={good}", f"sglang=={bad}", quantity)
                changes += roles is not None
                innocent = set(roles or ()) - (TOUCHED_BY[quantity] - uncalled)
                assert not innocent, f"{quantity.value}, {good} to {bad}"
    assert changes >= 15


@pytest.mark.parametrize(
    ("good", "bad", "quantity", "role"),
    [
        ("0.5.11", "0.5.12", Quantity.SPEC_HISTOGRAM, Role.RESOLVE),
        ("0.5.12", "0.5.11", Quantity.SPEC_ACCEPTED_DRAFTS, Role.RESOLVE),
        ("0.5.21", "0.5.22", Quantity.RELEASED_LEN, Role.COMMIT_LENGTH),  # which release calls
    ],
)
def test_only_the_function_that_makes_the_change_is_blamed(
    good: str, bad: str, quantity: Quantity, role: Role
) -> None:
    columns = Columns(bundled_recording("0.5.10-random"))
    assert blamed(columns, f"sglang=={good}", f"sglang=={bad}", quantity) == [role]


def test_a_function_that_only_calls_the_culprit_is_not_blamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The recording has no mixed launch, so `mix`, which calls merge_batch, never ran."""
    file = str(bundled() / "0.5.15-session-hole.h5")
    ends = ["--good", "sglang==0.5.12", "--bad", "sglang==0.5.23", "--quantity", "seq_lens_sum"]
    assert run(["bisect", file, *ends]) == DIFFERS
    said = capsys.readouterr().out
    assert "Causes the difference by itself: prepare, merge\n" in said
    assert said.count("+++ sglang 0.5.13 srt/managers/schedule_batch.py:2678 ") == 1  # merge_batch


def test_a_role_that_the_recording_never_calls_is_not_blamed(tmp_path: Path) -> None:
    """In 0.5.23, EAGLE and NGRAM prepare with the same function. This server ran EAGLE."""
    files, path = files_of("0.5.23"), "srt/speculative/eagle_utils.py"
    files[path] = files[path].replace("reserve=double_alloc,", "reserve=double_alloc + 1,")
    tree = str(write_tree(tmp_path / "tree", files))
    columns = Columns(bundled_recording("0.5.23-random"))
    assert blamed(columns, "sglang==0.5.23", tree, Quantity.KV_ALLOCATED_LEN) == [Role.PREPARE]


@pytest.mark.parametrize("version", ["0.5.10", "0.5.11", "0.5.15", "0.5.18", "0.5.23"])
def test_a_role_put_into_its_own_version_changes_nothing(version: str) -> None:
    """So no function that a replay calls, and no starting value that it needs, is lost."""
    mine = surface(version)
    for role in Role:
        mixed = grafted(mine, mine, role)
        assert mixed is not None and mixed.digest == mine.digest, role.value


def test_mixed_code_keeps_attributes_as_its_own_functions_do() -> None:
    """From 0.5.12 on the counters have other names; from 0.5.19 on `req.kv` has the lengths."""
    old, new = surface("0.5.11"), surface("0.5.12")
    innocent, counting = grafted(old, new, Role.EXPERTS), grafted(old, new, Role.RESOLVE)
    assert innocent is not None and counting is not None
    for mixed, kept, other in ((innocent, old, new), (counting, new, old)):
        names, there, elsewhere = (
            {name for name in _values(one, "Req") if name.startswith("spec_")}
            for one in (mixed, kept, other)
        )
        assert names == there and len(names & elsewhere) == 1  # spec_verify_ct
    old, new = surface("0.5.18"), surface("0.5.19")
    for base, other in ((old, new), (new, old)):
        innocent = grafted(base, other, Role.FILTER)
        assert innocent is not None
        for name in ("ReqKvInfo", "SessionSlot"):
            assert _values(innocent, name) == _values(base, name)
    saving = grafted(old, new, Role.SESSION_SAVE)
    assert saving is not None and "kv_committed_len" in _values(saving, "ReqKvInfo")


def test_a_function_that_nothing_calls_by_its_name_cannot_be_tried() -> None:
    old, new = surface("0.5.11"), surface("0.5.12")
    assert grafted(old, new, Role.STATISTICS) is None
    mixed = grafted(old, new, Role.RESOLVE)  # which brings its statistics along
    assert mixed is not None and mixed.roles["statistics"] == new.roles["statistics"]
    assert {item.key for item in mixed.definitions} >= reached(new, Role.RESOLVE).keys()
    assert old.roles["statistics"] not in {item.key for item in mixed.definitions}


def _values(of: Surface, name: str) -> dict[str, str]:
    """Return the starting values of a class."""
    return next(values for owner, values in of.defaults.items() if owner.endswith(f":{name}"))
