"""Where sglang is read from: wheels, folders, commits; and what happens where it cannot be."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lifting import Changed, bundled_recording, files_of, release, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.recorders import hdf5
from specdiff.recorders.errors import NoVerdictError, UsageError
from specdiff.replay import spec
from specdiff.replay.lift import cache, wheels
from specdiff.replay.lift.engine import replay
from specdiff.replay.lift.globals import stand_ins
from specdiff.replay.lift.lifting import lift
from specdiff.replay.lift.link import compiled
from specdiff.replay.lift.missing import CannotRunError
from specdiff.replay.lift.names import STAND_INS
from specdiff.replay.lift.open import surface_of
from specdiff.replay.lift.scheduler import Capturer
from specdiff.replay.lift.settings import Settings
from specdiff.replay.lift.source import open_dir
from test_fidelity import ERAS

RECORDING = str(bundled() / "0.5.23-random.h5")
_PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"


def lifted(text: str, repo: Path | None = None) -> spec.Lifted:
    path = spec.parse(text, None if repo is None else str(repo))
    assert isinstance(path, spec.Lifted)
    return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone made of the wheels: one commit and tag per release, and a commit between that changes nothing relevant."""
    repo = tmp_path_factory.mktemp("history")
    _git(repo, "init", "--quiet", "--initial-branch=main")
    for version in ERAS:
        shutil.rmtree(repo / "python", ignore_errors=True)
        write_tree(repo, files_of(version))
        _commit(repo, f"sglang {version}")
        _git(repo, "tag", f"v{version}")
        (repo / "README.md").write_text(f"behind {version}")
        _commit(repo, "docs")
        _git(repo, "tag", f"behind-{version}")
    return repo


def _git(repo: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, "-C", str(repo), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _commit(repo: Path, message: str) -> None:
    _git(repo, "add", "--all")
    _git(repo, "commit", "--quiet", "--message", message)


@pytest.mark.parametrize("version", ERAS)
def test_a_commit_holds_the_books_of_its_release(version: str, history: Path) -> None:
    released = surface_of(lifted(f"sglang=={version}"))
    for revision in (f"v{version}", f"behind-{version}", _git(history, "rev-parse", f"v{version}")):
        assert surface_of(lifted(f"sglang@{revision}", history)).digest == released.digest


def test_a_commit_gives_the_ledger_of_its_release(history: Path) -> None:
    recording = bundled_recording("0.5.23-random")
    for version in ERAS:
        two = (
            surface_of(lifted(f"sglang=={version}")),
            surface_of(lifted(f"sglang@v{version}", history)),
        )
        one, other = (replay(compiled(surface), recording).values for surface in two)
        assert one == other


def test_a_commit_is_read_without_a_checkout(history: Path) -> None:
    before = _git(history, "status", "--porcelain"), _git(history, "rev-parse", "HEAD")
    shutil.rmtree(history / "python")
    surface_of(lifted("sglang@v0.5.10", history))
    assert not (history / "python").exists()
    _git(history, "checkout", "--quiet", "--", ".")
    assert before == (_git(history, "status", "--porcelain"), _git(history, "rev-parse", "HEAD"))


@pytest.mark.parametrize("below", ["", "python", "python/sglang"])
def test_a_folder_is_found_from_above(below: str, tmp_path: Path) -> None:
    write_tree(tmp_path, files_of("0.5.12"))
    surface = lift(open_dir(tmp_path / below))
    assert surface.digest == surface_of(lifted("sglang==0.5.12")).digest


def test_the_command_line(
    tmp_path: Path, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = str(write_tree(tmp_path / "tree", files_of("0.5.10")))
    assert run(["replay", RECORDING, "--old", "observed", "--fixed", "sglang==0.5.23"]) == SAME
    assert run(["replay", RECORDING, "--old", "old", "--fixed", tree]) == SAME
    revision = ["--old", "sglang@v0.5.11", "--repo", str(history)]
    assert run(["replay", RECORDING, *revision, "--fixed", "old+22651"]) == SAME
    capsys.readouterr()
    assert (
        run(["replay", RECORDING, "--old", "sglang==0.5.11", "--fixed", "sglang==0.5.12"])
        == DIFFERS
    )
    said = capsys.readouterr().out
    assert "#23456" in said and "#24851" in said and "#22651" not in said


def test_a_difference_between_two_lifted_paths_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(
        [
            "replay",
            RECORDING,
            "--old",
            "sglang==0.5.10",
            "--fixed",
            "sglang==0.5.23",
            "--format",
            "json",
        ]
    )
    said = capsys.readouterr().out
    assert '"unexplained"' in said
    assert all(f'"unexplained": {n}' not in said for n in range(1, 10))


def test_paths_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["paths"]) == SAME
    lines = {
        line.split()[0]: line.split()[-1]
        for line in capsys.readouterr().out.splitlines()
        if line.strip()
    }
    for version, fixes in ERAS.items():
        assert lines.get(f"sglang=={version}", fixes) == fixes
    assert run(["paths", "--explain", "sglang==0.5.12"]) == SAME
    said = capsys.readouterr().out
    assert "SchedulerOutputProcessorMixin._resolve_spec_overlap_tokens" in said
    assert "req.is_retracted" in said and "not in this sglang" in said
    assert run(["paths", "--explain", "old"]) == USAGE


BAD = [
    ("sglang==", USAGE, "not a version"),
    ("sglang==--index-url=http://x", USAGE, "not a version"),
    ("sglang=0.5.11", USAGE, "sglang==VERSION"),
    ("sglang@", USAGE, "sglang==VERSION"),
    ("sglang@main", USAGE, "--repo"),
    ("./no/such/folder", USAGE, "no sglang source tree"),
]


@pytest.mark.parametrize(("path", "code", "says"), BAD)
def test_bad_paths(path: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", RECORDING, "--old", path]) == code
    assert says in capsys.readouterr().err


def test_a_revision_that_is_not_there(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in ("no-such-tag", "--upload-pack=x", "v0.5.10:python"):
        command = ["replay", RECORDING, "--old", f"sglang@{revision}", "--repo", str(history)]
        assert run(command) == USAGE
        assert "no such commit" in capsys.readouterr().err
    assert run(["replay", RECORDING, "--old", "sglang@main", "--repo", "/no/such"]) == USAGE
    assert "no such folder" in capsys.readouterr().err


def test_a_commit_without_sglang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "README").write_text("nothing")
    _commit(tmp_path, "nothing")
    command = ["replay", RECORDING, "--old", "sglang@main", "--repo", str(tmp_path)]
    assert run(command) == USAGE
    assert "holds no sglang" in capsys.readouterr().err


def test_an_sglang_that_is_too_old_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As before spec v2: a tree without the resolve function and its prepare."""
    files = {
        path: text
        for path, text in files_of("0.5.10").items()
        if "output_processor" not in path and "speculative" not in path
    }
    tree = write_tree(tmp_path, files)
    assert run(["replay", RECORDING, "--old", str(tree)]) == NO_VERDICT
    assert "no resolve and no prepare" in capsys.readouterr().err


def test_a_release_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert run(["replay", RECORDING, "--old", "sglang==0.5.10"]) == NO_VERDICT
    assert str(tmp_path) in capsys.readouterr().err


def test_a_cached_release_needs_no_network_and_no_wheel_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheels.wheel_of("0.5.10")
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    folder = tmp_path / "sglang" / "wheels"
    folder.mkdir(parents=True)
    copy = folder / wheel.name
    shutil.copy(wheel, copy)
    first = surface_of(lifted("sglang==0.5.10"))
    assert wheels.recorded_hash(copy) == hashlib.sha256(wheel.read_bytes()).hexdigest()
    copy.write_bytes(b"")  # the surface is kept: the wheel is not read again
    assert surface_of(lifted("sglang==0.5.10")) == first


def test_a_changed_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    folder = tmp_path / "sglang" / "wheels"
    folder.mkdir(parents=True)
    wheel = folder / "sglang-0.5.10-py3-none-any.whl"
    wheel.write_bytes(b"not what was fetched")
    wheel.with_name(f"{wheel.name}.sha256").write_text("0" * 64)
    with pytest.raises(UsageError, match="sha256"):
        surface_of(lifted("sglang==0.5.10"))
    wheel.with_name(f"{wheel.name}.sha256").unlink()
    with pytest.raises(UsageError, match="not a readable wheel"):
        surface_of(lifted("sglang==0.5.10"))


def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surface = surface_of(lifted("sglang==0.5.10"))
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    cache.save("key", surface)
    assert cache.load("key") == surface
    for damage in ("", "{}", "[1]", cache.kept("key").read_text()[:500]):
        cache.kept("key").write_text(damage)
        assert cache.load("key") is None


def test_what_a_recording_does_not_hold_is_never_invented() -> None:
    with release("0.5.23") as source:
        for body, says in (
            ("req.waited_for", "resolve reads req.waited_for, which recordings of format"),
            ("result.temperature", "resolve reads result.temperature"),
            ("getattr(self, 'budget', 0)", "resolve reads self.budget"),
            ("torch.rand", "resolve reads torch.rand"),
            ("open('/etc/passwd')", "resolve calls the global open"),
            ("eval('1')", "resolve calls the global eval"),
        ):
            changed = Changed(
                source,
                _PROCESSOR,
                "_resolve_spec_v2_tokens",
                "req.spec_verify_ct += 1",
                f"req.spec_verify_ct += bool({body})",
            )
            with pytest.raises(CannotRunError, match="cannot run") as raised:
                replay(compiled(lift(changed)), bundled_recording("0.5.23-random"))
            assert says in str(raised.value)


def test_unknown_globals_are_listed() -> None:
    with release("0.5.23") as source:
        changed = Changed(
            source,
            _PROCESSOR,
            "_resolve_spec_v2_tokens",
            "predict_tokens = []",
            "predict_tokens = []; somewhere.else_()",
        )
        assert "somewhere" in lift(changed).unknown


def test_the_hash_is_blind_to_what_does_not_compute() -> None:
    """Comments, docstrings, annotations, blank lines; and not blind to anything that does."""
    with release("0.5.23") as source:
        plain = lift(source).digest
        name = "_resolve_spec_v2_tokens"
        for old, new, same in (
            ("predict_tokens = []", "predict_tokens: list = []  # tokens\n\n", True),
            ("predict_tokens = []", "predict_tokens = [ ]", True),
            ("req.spec_verify_ct += 1", "req.spec_verify_ct += 2", False),
        ):
            digest = lift(Changed(source, _PROCESSOR, name, old, new)).digest
            assert (digest == plain) == same, new


def test_the_engine_needs_no_torch() -> None:
    code = "import sys, specdiff.replay.lift.engine, specdiff.replay.lift.lifting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_codes_differ() -> None:
    assert len({SAME, DIFFERS, NO_VERDICT, BROKEN, USAGE}) == 5
    assert issubclass(CannotRunError, NoVerdictError)


def test_a_file_that_cannot_be_read_says_which(tmp_path: Path) -> None:
    files = files_of("0.5.12")
    broken = "srt/speculative/eagle_info_v2.py"
    tree = write_tree(tmp_path, files)
    for contents in (b"def prepare_for_decode(:", b"\xff\xfe", b"x = '\0'"):
        (tree / "python" / "sglang" / broken).write_bytes(contents)
        with pytest.raises(CannotRunError, match=broken):
            lift(open_dir(tree))


def test_every_name_that_is_promised_is_answered() -> None:
    settings = Settings(bundled_recording("0.5.23-random").run)
    assert stand_ins(settings, Capturer()).keys() == STAND_INS


def test_one_recording_that_cannot_be_replayed_leaves_the_others_their_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst wins: differs before no verdict, no verdict before same."""
    recording = bundled_recording("0.5.23-random")
    foreign = dataclasses.replace(
        recording, run=dataclasses.replace(recording.run, spec_algorithm="DFLASH")
    )
    hdf5.save(foreign, tmp_path / "foreign.h5")
    both = ["replay", str(tmp_path / "foreign.h5"), RECORDING, "--old", "sglang==0.5.23"]
    assert run([*both, "--fixed", "observed"]) == NO_VERDICT
    said = capsys.readouterr()
    assert "foreign.h5: cannot run: sglang 0.5.23 prepare for DFLASH" in said.err
    assert "0.5.23-random.h5  same" in said.out
    assert run([*both, "--fixed", "old"]) == DIFFERS
    assert run([*both[:2], *both[3:]]) == NO_VERDICT
