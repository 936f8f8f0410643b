"""The search alone: against a scan of everything, over random histories, and against git's own bisect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdiff.recorders.errors import NoVerdictError
from specdiff.replay.bisect.judge import Finding, Judged
from specdiff.replay.bisect.line import changes
from specdiff.replay.bisect.search import search
from specdiff.replay.spec import OLD, Lifted, Origin
from specdiff.replay.spec import Path as Spec

GOOD, BAD, SKIPPED = Finding


@dataclass(slots=True)
class Oracle:
    """Says what it was told, by version or commit, and counts how often it was asked."""

    says: Mapping[str, Finding]
    reference: Spec = OLD
    asked: list[str] = field(default_factory=list)

    def __call__(self, path: Lifted) -> Judged:
        self.asked.append(path.where)
        return Judged(path, self.says[path.where], None)


def release(version: str) -> Lifted:
    return Lifted(f"sglang=={version}", Origin.RELEASE, version)


FINDINGS = st.lists(st.sampled_from(list(Finding)), min_size=17, max_size=17)


@given(FINDINGS, st.booleans())
def test_releases_are_scanned_from_the_good_end(inner: list[Finding], newer_is_good: bool) -> None:
    oracle = Oracle(says)
    good, bad = (
        Lifted(name[:12], Origin.REVISION, name, str(tmp_path)) for name in (names[0], names[-1])
    )
    found = search(oracle, good, bad, lambda _: None)
    assert found.change is not None
    assert found.change.shown.path.where == names[217]
    assert len(set(oracle.asked)) <= 2 + 9


def test_a_side_branch_vouches_for_its_merge_base(tmp_path: Path) -> None:
    """As in git: 1 and 2 both stem from 0, and 1 is good. Is the base bad, it is 1 that mended it."""
    names = written(History(((), (0,), (0,))), tmp_path)
    good, bad = (
        Lifted(name[:12], Origin.REVISION, name, str(tmp_path)) for name in (names[1], names[2])
    )
    base_good = search(
        Oracle({names[0]: GOOD, names[1]: GOOD, names[2]: BAD}), good, bad, lambda _: None
    )
    assert base_good.change is not None
    assert base_good.change.shown.path.where == names[2]
    with pytest.raises(NoVerdictError, match="merge base"):
        search(Oracle({names[0]: BAD, names[1]: GOOD, names[2]: BAD}), good, bad, lambda _: None)


def test_changes_are_told_in_order() -> None:
    line = [
        Judged(release(v), f, None)
        for v, f in zip("12345", (GOOD, BAD, SKIPPED, GOOD, BAD), strict=True)
    ]
    told = [(c.last.path.where, [s.path.where for s in c.suspects]) for c in changes(line)]
    assert told == [("1", ["2"]), ("2", ["3", "4"]), ("4", ["5"])]
