"""Sources to lift in tests: the real releases, and copies of them with one line changed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import SeriesDiff, diff
from specdiff.replay.lift.ledger import ledger_of
from specdiff.replay.lift.lifting import lift
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.source import Source, open_wheel
from specdiff.replay.lift.wheels import wheel_of
from specdiff.replay.observed import observed
from specdiff.replay.quantity import Quantity


@dataclass
class Changed:
    """A source with one function changed: `new` replaces `old`, which the function must contain."""

    source: Source
    path: str
    function: str
    old: str
    new: str
    name: str = "changed"

    def read(self, path: str) -> str | None:
        text = self.source.read(path)
        if path != self.path or text is None:
            return text
        lines = text.splitlines(keepends=True)
        found = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.name == self.function
        ]
        assert found, f"{path} has no {self.function}"
        start, end = found[-1].lineno - 1, found[-1].end_lineno
        body = "".join(lines[start:end])
        assert self.old in body, f"{self.function} does not contain {self.old!r}"
        return "".join(lines[:start]) + body.replace(self.old, self.new) + "".join(lines[end:])


@dataclass
class Noted:
    """A source that notes which files were read."""

    source: Source
    files: dict[str, str] = field(default_factory=dict)
    name: str = "noted"

    def read(self, path: str) -> str | None:
        text = self.source.read(path)
        if text is not None:
            self.files[path] = text
        return text


@contextmanager
def release(version: str) -> Iterator[Source]:
    source = open_wheel(wheel_of(version), f"sglang {version}")
    with source.wheel:
        yield source


def files_of(version: str) -> dict[str, str]:
    """Return the files that lifting this release reads."""
    with release(version) as source:
        noted = Noted(source)
        lift(noted)
    return noted.files


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write a source tree with the layout of a clone: python/sglang/..."""
    for path, text in files.items():
        target = folder / "python" / "sglang" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def lifted(text: str, repo: Path | None = None) -> spec.Lifted:
    path = spec.parse(text, None if repo is None else str(repo))
    assert isinstance(path, spec.Lifted)
    return path


def compiled(source: Source) -> Program:
    return Program(lift(source))


def bundled_recording(name: str) -> Recording:
    return hdf5.load(bundled() / f"{name}.h5")


def against_observed(recording: Recording, made: Program) -> dict[Quantity, SeriesDiff]:
    columns = Columns(recording)
    differences = diff(recording, observed(columns), ledger_of(columns, made, made.name))
    return {difference.quantity: difference for difference in differences}
