"""A pytest plugin that makes tests from recordings, one for each recording and path.

It is installed with specdiff. It does nothing, and imports nothing slow, until recordings are configured.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ..recorders.errors import (
    NoVerdictError,
    SpecdiffError,
    UsageError,
    is_a_journal,
    printable,
    to_recover,
)
from ..recorders.file_names import JOURNAL, is_journal

if TYPE_CHECKING:
    from ..recorders.recording import Recording
    from ..replay import spec
    from ..replay.quantity import Quantity
    from .known_mismatches import JudgedRecording
    from .project_settings import KnownMismatch

_OPTIONS = {  # name -> (help, is a list, default)
    "recordings": ("Recordings to test: a folder or a file (*.h5).", True, []),
    "old": ("Left path of the comparison, as in `specdiff replay --old`.", False, "observed"),
    "path": ("Right path of the comparison; each path is a separate test.", True, ["expected"]),
    "quantity": ("Compare only this quantity; skip the test if none of it was captured.", True, []),
    "repo": ("Git clone that contains the REV of sglang@REV.", False, None),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The configured recordings, left path and right paths."""

    recordings: tuple[Path, ...]  # as named, and with links resolved
    old: spec.Path
    paths: tuple[spec.Path, ...]
    quantities: tuple[Quantity, ...]
    known: tuple[KnownMismatch, ...]

    def holds(self, file: Path) -> bool:
        names = {file, file.resolve()}
        return any(name == one or one in name.parents for name in names for one in self.recordings)


_WANTED = pytest.StashKey[Wanted]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("specdiff", "tests from recordings of sglang's scheduler")
    for name, (says, many, default) in _OPTIONS.items():
        more = " May be repeated." if many else ""
        action = "append" if many else "store"
        group.addoption(f"--specdiff-{name}", action=action, metavar=name.upper(), help=says + more)
        sort = "paths" if name == "recordings" else "linelist" if many else "string"
        parser.addini(f"specdiff_{name}", says, type=sort, default=default)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    named = config.getoption("--specdiff-recordings")
    found = [config.invocation_params.dir / name for name in named or ()]
    # Keep the names of links: tests are named after them, and known mismatches may match them.
    recordings = [_absolute(path) for path in found or config.getini("specdiff_recordings")]
    if not recordings:
        return
    try:
        wanted = config.stash[_WANTED] = _wanted(config, recordings)
    except UsageError as error:
        raise pytest.UsageError(f"specdiff: {error}") from error
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS
    paths = [config.invocation_params.dir / arg.partition("::")[0] for arg in config.args]
    # Tests named on the command line replace the recordings of the configuration, and a single recording named there
    # replaces the whole folder.
    if not any(wanted.holds(_absolute(path)) for path in paths) and (named or not chosen):
        config.args += map(str, recordings)


def _wanted(config: pytest.Config, recordings: list[Path]) -> Wanted:
    from ..replay.quantity import Quantity
    from . import options, project_settings

    for path in recordings:
        if is_journal(path):
            raise UsageError(f"--specdiff-recordings {is_a_journal(path)}")
        if not path.is_file() and not any(path.rglob("*.h5")):
            folders = sorted(_journals(path))
            remedy = f" It contains journals: run `{to_recover(folders[0])}`." if folders else ""
            raise UsageError(f"--specdiff-recordings {path}: no recording (*.h5) found.{remedy}")
    repo = _repo(config)
    names = [quantity.value for quantity in Quantity]
    for name in _option(config, "quantity"):
        if name not in names:
            raise UsageError(f"no such quantity: {name!r}. Expected one of {', '.join(names)}.")
    old, *paths = (
        _path(config, name, text, repo)
        for name, texts in (("old", [_option(config, "old")]), ("path", _option(config, "path")))
        for text in texts
    )
    # A clone from the configuration may be meant for other runs, so it need not be used.
    if config.getoption("--specdiff-repo"):
        options.paths_of([_word(path) for path in (old, *paths)], repo, "--specdiff-repo")
    return Wanted(
        (*recordings, *(path.resolve() for path in recordings)),
        old,
        tuple(paths),
        tuple(map(Quantity, dict.fromkeys(_option(config, "quantity")))),
        project_settings.load(config.rootpath).known,
    )


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(f"--specdiff-{name}") or config.getini(f"specdiff_{name}")


def _repo(config: pytest.Config) -> str | None:
    given: str | None = config.getoption("--specdiff-repo")
    named: str | None = config.getini("specdiff_repo")
    return given or (named and str(_folder(config) / named))


def _path(config: pytest.Config, option: str, text: str, repo: str | None) -> spec.Path:
    """Parse a path. A source tree in the configuration is relative to the configuration file and keeps its name from there."""
    from ..replay import spec

    if config.getoption(f"--specdiff-{option}"):
        return spec.parse(text, repo)
    there = _folder(config) / text
    try:
        path = spec.parse(text, repo)
    except UsageError:  # the parser looked in the current folder
        if not there.is_dir():
            raise
        path = spec.Lifted(text, spec.Origin.TREE, text)
    if isinstance(path, spec.Lifted) and path.origin is spec.Origin.TREE:
        return replace(path, where=str(there))
    return path


def _folder(config: pytest.Config) -> Path:
    """The folder that relative names in the configuration start from, as pytest resolves those of recordings."""
    return config.inipath.parent if config.inipath else config.invocation_params.dir


def _word(path: spec.Path) -> str:
    """The path as an argument for a command line in the current folder."""
    from ..replay import spec

    if isinstance(path, spec.Lifted) and path.origin is spec.Origin.TREE:
        return path.where
    return str(path)


def _absolute(path: Path) -> Path:
    """The absolute path without resolving links, like the paths that pytest collects."""
    return Path(os.path.abspath(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    wanted = parent.config.stash.get(_WANTED, None)
    if wanted is None or file_path.suffix != ".h5" or not wanted.holds(file_path):
        return None
    return RecordingFile.from_parent(parent, path=file_path)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the journals beside recordings. A pytest warning would fail a run with `-W error`."""
    wanted = config.stash.get(_WANTED, None)
    found = {} if wanted is None else _journals(*_collected(config, wanted))
    if not found:
        return
    from .inputs import journals_left_out

    terminalreporter.section("specdiff", yellow=True)
    for folder, count in sorted(found.items()):
        shown = Path(os.path.relpath(folder, config.invocation_params.dir))
        terminalreporter.write_line(printable(journals_left_out(shown, count)))


def _collected(config: pytest.Config, wanted: Wanted) -> Iterator[Path]:
    """The folders of recordings that this run collects: it may name a part of those configured, or none."""
    for arg in config.args:
        path = _absolute(config.invocation_params.dir / arg.partition("::")[0])
        if wanted.holds(path):
            yield path
        else:
            yield from (one for one in wanted.recordings if path in one.parents)


def _journals(*folders: Path) -> Counter[Path]:
    """Count the journals in these folders and below, by the folder that they are in. A ring's is a folder."""
    found = {path.resolve() for folder in folders for path in folder.rglob(f"*{JOURNAL}")}
    return Counter(path.parent for path in found)


class RecordingFile(pytest.File):
    """One recording. It is read when its first test is set up, so that a broken file is an error of its tests."""

    _recording: Recording | None = None

    def collect(self) -> Iterator[pytest.Item]:
        for path in self.config.stash[_WANTED].paths:
            yield ReplayItem.from_parent(self, name=str(path), right=path)

    def load(self) -> Recording:
        from ..recorders import hdf5

        if self._recording is None:
            self._recording = hdf5.load(self.path)
        return self._recording

    def teardown(self) -> None:
        self._recording = None


class DifferError(Exception):
    """The paths differ, or a known mismatch is out of date. The text is the report."""


class ReplayItem(pytest.Item):
    """Compare one recording under two paths. Skipped if a path cannot run it or nothing was compared."""

    parent: RecordingFile

    def __init__(self, *, right: spec.Path, **rest: Any) -> None:
        super().__init__(**rest)
        self._right, self._wanted = right, self.config.stash[_WANTED]

    def setup(self) -> None:
        if error := self._broken():
            pytest.fail(str(error), pytrace=False)  # in setup: an error, not a failure

    def _broken(self) -> SpecdiffError | None:
        from ..replay.lift.open import program_of
        from ..replay.spec import Lifted

        try:
            self.parent.load()
            for path in (self._wanted.old, self._right):
                if isinstance(path, Lifted):
                    program_of(path)
        except NoVerdictError as error:
            self._skip(error)
        except SpecdiffError as error:
            return error
        return None

    def runtest(self) -> None:
        from ..replay.verdict import Verdict
        from .report_replay import failure

        try:
            judged = self._judged()
        except NoVerdictError as error:
            self._skip(error)
        if judged.complaints:
            raise DifferError("\n".join(judged.complaints))
        verdict = judged.verdict(named=bool(self._wanted.quantities))
        if verdict is Verdict.NO_VERDICT:
            why = {one.why_not for one in judged.result.quantities if one.why_not}
            self._skip(f"nothing was compared: {'; '.join(sorted(why))}")
        if verdict is Verdict.DIFFERS:
            raise DifferError(failure(judged, self._command()))
        if judged.excused:
            reasons = (f"{q.value}: {entry.reason}" for q, entry in judged.excused.items())
            pytest.xfail("; ".join(reasons))
            raise DifferError(failure(judged, self._command()))  # under --runxfail, `xfail` returns

    def _judged(self) -> JudgedRecording:
        from ..replay.verdict import replay
        from . import known_mismatches

        wanted = self._wanted
        quantities = wanted.quantities or None
        result = replay(self.parent.load(), wanted.old, self._right, quantities)
        return known_mismatches.judge_recording(wanted.known, self.path, result)

    def _command(self) -> str:
        """The command that prints the full report of a failure."""
        from ..replay.spec import Lifted

        wanted = self._wanted
        words = [
            "specdiff",
            "replay",
            os.path.relpath(self.path, self.config.invocation_params.dir),
        ]
        words += ["--old", _word(wanted.old), "--fixed", _word(self._right)]
        words += [word for one in wanted.quantities for word in ("--quantity", one.value)]
        sides = (wanted.old, self._right)
        clone = next((path.repo for path in sides if isinstance(path, Lifted) and path.repo), None)
        words += ["--repo", clone] if clone else []
        return shlex.join(words)

    def _skip(self, why: object) -> NoReturn:
        pytest.skip(f"{self.path.name}, {self.name}: {why}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, DifferError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name}: {self._wanted.old} against {self._right}"
