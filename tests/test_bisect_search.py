"""The search alone, compared with a scan of every version and with git's own bisect."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clones import git
from specdiff.recorders.errors import NoVerdictError, UsageError
from specdiff.replay.bisect.judge import Finding, JudgedCandidate
from specdiff.replay.bisect.line import changes
from specdiff.replay.bisect.search import Search, search
from specdiff.replay.lift.releases import RELEASES, between
from specdiff.replay.spec import Lifted, Origin

GOOD, BAD, SKIPPED = Finding


@dataclass(slots=True)
class Oracle:
    """Gives prepared answers by version or commit, and counts the questions."""

    says: Mapping[str, Finding]
    asked: list[str] = field(default_factory=list)

    def __call__(self, path: Lifted) -> JudgedCandidate:
        self.asked.append(path.where)
        return JudgedCandidate(path, self.says[path.where], None)

    def prefetch(self, paths: Sequence[Lifted]) -> None:
        """Nothing to prepare: it knows all answers."""

    def why_not_good(self, end: Lifted) -> str:
        return "its answer was prepared."


def release(version: str) -> Lifted:
    return Lifted(f"sglang=={version}", Origin.RELEASE, version)


FINDINGS = st.lists(st.sampled_from(list(Finding)), min_size=17, max_size=17)


@given(FINDINGS, st.booleans())
def test_releases_are_scanned_from_the_good_end(inner: list[Finding], newer_is_good: bool) -> None:
    ends = [BAD, GOOD] if newer_is_good else [GOOD, BAD]
    line = [ends[0], *inner, ends[1]]
    says = dict(zip(RELEASES, line, strict=True))
    good, bad = (RELEASES[-1], RELEASES[0]) if newer_is_good else (RELEASES[0], RELEASES[-1])
    found = search(Oracle(says), release(good), release(bad), lambda _: None)

    # The expected edge: the bad version nearest to the good end, and everything skipped before it.
    toward_bad = RELEASES[::-1] if newer_is_good else RELEASES
    first_bad = next(i for i, version in enumerate(toward_bad) if says[version] is BAD)
    last_good = max(i for i in range(first_bad) if says[toward_bad[i]] is GOOD)
    edge = toward_bad[last_good : first_bad + 1]
    chronological = edge[::-1] if newer_is_good else edge
    assert found.change is not None
    assert found.change.last.path.where == chronological[0]
    assert [one.path.where for one in found.change.suspects] == list(chronological[1:])

    known = [finding for finding in line if finding is not SKIPPED]
    flips = sum(one is not other for one, other in pairwise(known))
    assert 1 + len(found.others) == flips
    assert not found.one_change


def test_releases_between() -> None:
    assert between("0.5.10", "0.5.11") == ["0.5.10", "0.5.10.post1", "0.5.11"]
    assert between("0.5.9", "0.5.23") == list(RELEASES)


def test_wheels_in_the_cache_count_as_releases_only_if_their_version_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    (tmp_path / "sglang" / "wheels").mkdir(parents=True)
    for name in ("sglang-nightly-py3-none-any.whl", "sglang-0.5.10.post2-py3-none-any.whl"):
        (tmp_path / "sglang" / "wheels" / name).touch()
    assert between("0.5.10.post1", "0.5.11") == ["0.5.10.post1", "0.5.10.post2", "0.5.11"]


def test_equal_ends_are_not_searched() -> None:
    says = dict.fromkeys(RELEASES, GOOD)
    oracle = Oracle(says)
    found = search(oracle, release("0.5.9"), release("0.5.23"), lambda _: None)
    assert found.change is None
    assert oracle.asked == ["0.5.9", "0.5.23"]  # `history` looks at the versions in between


def test_ends_that_cannot_bound_a_search_are_refused() -> None:
    says = {"0.5.9": BAD, "0.5.10": SKIPPED, "0.5.11": GOOD}
    with pytest.raises(
        NoVerdictError, match=r"sglang==0\.5\.9 is not good: its answer was prepared"
    ):
        search(Oracle(says), release("0.5.9"), release("0.5.11"), lambda _: None)
    with pytest.raises(NoVerdictError, match=r"0\.5\.10, the bad end"):
        search(Oracle(says), release("0.5.11"), release("0.5.10"), lambda _: None)
    with pytest.raises(UsageError, match="two releases"):
        commit = Lifted("sglang@x", Origin.REVISION, "x", ".")
        search(Oracle(says), release("0.5.11"), commit, lambda _: None)


@pytest.mark.parametrize("skip", ["0.5.9", "sglang==0.5.9", "0.5.11", "sglang==0.5.11"])
def test_skipping_a_release_at_an_end_is_refused(skip: str) -> None:
    oracle = Oracle({"0.5.9": GOOD, "0.5.11": BAD})
    with pytest.raises(UsageError, match=f"--skip {skip}: an end of the search"):
        search(oracle, release("0.5.9"), release("0.5.11"), lambda _: None, [skip])
    assert not oracle.asked


@pytest.mark.parametrize("skip", ["0.5.10", "sglang==0.5.10", "v0.5.10", "sglang==v0.5.10"])
def test_a_release_is_skipped_by_any_of_its_names(skip: str) -> None:
    oracle = Oracle({"0.5.9": GOOD, "0.5.10.post1": BAD, "0.5.11": BAD})
    search(oracle, release("0.5.9"), release("0.5.11"), lambda _: None, [skip])
    assert "0.5.10" not in oracle.asked and "0.5.10.post1" in oracle.asked


def test_skipping_a_commit_at_an_end_is_refused(tmp_path: Path) -> None:
    names = written(History(((), (0,), (1,))), tmp_path)
    first, _, last = (Lifted(name, Origin.REVISION, name, str(tmp_path)) for name in names)
    for skip in (names[0][:12], "c2", "sglang@c2"):
        with pytest.raises(UsageError, match=f"--skip {skip}: an end of the search"):
            search(Oracle({}), first, last, lambda _: None, [skip])


@dataclass(frozen=True, slots=True)
class History:
    """A git history of numbers.

    Each commit has these parents, all of them older. What the last commit reaches counts.
    """

    parents: tuple[tuple[int, ...], ...]

    def ancestors(self, commit: int) -> set[int]:
        """Return all ancestors, including the commit itself."""
        found: set[int] = set()
        ahead = [commit]
        while ahead:
            one = ahead.pop()
            if one not in found:
                found.add(one)
                ahead += self.parents[one]
        return found


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw chains with branches and merges. Commit 0 is the root."""
    parents: list[tuple[int, ...]] = [()]
    for commit in range(1, draw(st.integers(4, 24))):
        first = draw(st.integers(max(0, commit - 4), commit - 1))
        second = draw(st.none() | st.integers(0, commit - 1))
        merge = second is not None and second != first
        parents.append((first, second) if merge and second is not None else (first,))
    return History(tuple(parents))


def written(history: History, repo: Path) -> list[str]:
    """Write the commits to a real repository. Return their names by number."""
    git(repo, "init", "--quiet", "--initial-branch=main")
    stream = "".join(_imported(history))
    subprocess.run(
        ["git", "-C", str(repo), "fast-import", "--quiet", "--export-marks=marks"],
        input=stream,
        text=True,
        check=True,
    )
    marks = (repo / "marks").read_text().splitlines()
    by_mark = dict(line.split() for line in marks)
    return [by_mark[f":{i + 1}"] for i in range(len(history.parents))]


def _imported(history: History) -> Iterator[str]:
    for commit, parents in enumerate(history.parents):
        who = f"t <t@example.org> {1_700_000_000 + commit} +0000"
        yield f"commit refs/heads/c{commit}\nmark :{commit + 1}\ncommitter {who}\ndata 1\nx\n"
        for place, parent in enumerate(parents):
            yield f"{'merge' if place else 'from'} :{parent + 1}\n"
        yield f"M 644 inline number\ndata {len(str(commit))}\n{commit}\n"


@settings(max_examples=30)
@given(histories(), st.data())
def test_the_search_over_commits_finds_what_a_scan_of_all_finds(
    history: History, data: st.DataObject
) -> None:
    newest = len(history.parents) - 1
    inside = history.ancestors(newest)
    culprit = data.draw(st.sampled_from(sorted(inside - {0})))
    skipped = data.draw(st.sets(st.sampled_from(sorted(inside - {0, newest}) or [newest])))
    fixed = data.draw(st.booleans())  # whether the culprit is a fix, so that the newer end is good
    with TemporaryDirectory() as folder:
        names = written(history, Path(folder))
        says = {
            names[i]: GOOD if (culprit in history.ancestors(i)) is fixed else BAD
            for i in range(newest + 1)
        }
        says |= {names[i]: SKIPPED for i in skipped - {newest}}
        found = _searched(says, names, Path(folder), fixed)
    assert found.change is not None
    suspects = [names.index(one.path.where) for one in found.change.suspects]
    assert culprit in suspects
    assert all(says[names[i]] is SKIPPED for i in suspects[:-1])
    assert says[names[suspects[-1]]] is (GOOD if fixed else BAD)
    if not skipped:
        assert suspects == [culprit]


def _searched(says: dict[str, Finding], names: list[str], repo: Path, fixed: bool) -> Search:
    def commit(i: int) -> Lifted:
        return Lifted(f"sglang@{names[i][:12]}", Origin.REVISION, names[i], str(repo))

    good, bad = (commit(-1), commit(0)) if fixed else (commit(0), commit(-1))
    return search(Oracle(says), good, bad, lambda _: None)


@settings(max_examples=5)
@given(histories(), st.data())
def test_git_itself_finds_the_same_commit(history: History, data: st.DataObject) -> None:
    newest = len(history.parents) - 1
    culprit = data.draw(st.sampled_from(sorted(history.ancestors(newest) - {0})))
    with TemporaryDirectory() as folder:
        repo = Path(folder)
        names = written(history, repo)
        bad = {names[i] for i in range(newest + 1) if culprit in history.ancestors(i)}
        says = {name: BAD if name in bad else GOOD for name in names}
        found = _searched(says, names, repo, fixed=False)
        (repo / "bad").write_text("\n".join(sorted(bad)))
        git(repo, "checkout", "--quiet", names[newest])
        told = git(repo, "bisect", "start", names[newest], names[0])
        if "first bad commit" not in told:
            told = git(repo, "bisect", "run", "sh", "-c", "! grep -q $(git rev-parse HEAD) bad")
    assert found.change is not None
    assert f"{found.change.shown.path.where} is the first bad commit" in told


def test_a_long_history_takes_few_questions(tmp_path: Path) -> None:
    history = History(((), *((i,) for i in range(299))))
    names = written(history, tmp_path)
    says = {name: BAD if i >= 217 else GOOD for i, name in enumerate(names)}
    oracle = Oracle(says)
    good, bad = (
        Lifted(name[:12], Origin.REVISION, name, str(tmp_path)) for name in (names[0], names[-1])
    )
    found = search(oracle, good, bad, lambda _: None)
    assert found.change is not None
    assert found.change.shown.path.where == names[217]
    assert len(set(oracle.asked)) <= 2 + 9


def test_the_merge_base_of_two_branches_must_be_good(tmp_path: Path) -> None:
    """As in git: 1 and 2 both stem from 0, and 1 is good.

    If 0 is bad, then 1 fixed it, and the search has no answer.
    """
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


def test_changes_are_listed_in_order() -> None:
    line = [
        JudgedCandidate(release(v), f, None)
        for v, f in zip("12345", (GOOD, BAD, SKIPPED, GOOD, BAD), strict=True)
    ]
    told = [(c.last.path.where, [s.path.where for s in c.suspects]) for c in changes(line)]
    assert told == [("1", ["2"]), ("2", ["3", "4"]), ("4", ["5"])]


def test_an_unrelated_history_that_was_merged_in_widens_the_range(tmp_path: Path) -> None:
    """1 has no parent and is skipped, and 2 merges it.

    The answer is a range, and the good end comes before it.
    """
    names = written(History(((), (), (0, 1), (2,))), tmp_path)
    says = dict(zip(names, (GOOD, SKIPPED, SKIPPED, BAD), strict=True))
    found = _searched(says, names, tmp_path, fixed=False)
    assert found.change is not None
    assert [one.path.where for one in found.change.suspects] == names[1:]
    assert found.change.last.path.where == names[0]
