"""The notes of recorded processes, on disks that are full for a while."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from specdiff.recorders.capture.note_writer import NoteWriter
from specdiff.recorders.notes import Note, read_notes
from specdiff.recorders.recover import notes

FIRST = {"sglang_version": "0.5.23", "missing": {}}


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a disk that is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def began(number: int) -> dict[str, object]:
    return {"constructed": True, "why": None, "journal": f"{number}.journal", "folder": "/other"}


def only_note(folder: Path) -> Note:
    (note,) = read_notes(notes(folder))
    return note


@pytest.mark.parametrize("room", [0, 1, 30, "all but the last byte"])
def test_what_a_full_disk_refused_is_written_later(room: int | str, tmp_path: Path) -> None:
    writer = NoteWriter(tmp_path, "r", lambda: FIRST)
    writer.open()
    writer.add(**began(0))
    (path,) = notes(tmp_path)
    line = len(json.dumps(began(1)))
    with full_at(path.stat().st_size + (line if isinstance(room, str) else room)):
        writer.add(**began(1))
        writer.add(**began(2))
        whole = 1 + isinstance(room, str)
        assert len(only_note(tmp_path).journals) == whole
    writer.add(**began(3))
    assert [one.name for one in only_note(tmp_path).journals] == [f"{i}.journal" for i in range(4)]


def test_a_note_that_could_not_be_created_is_complete_later(tmp_path: Path) -> None:
    writer = NoteWriter(tmp_path / "later", "r", lambda: FIRST)
    writer.open()
    writer.add(**began(0))
    (tmp_path / "later").mkdir()
    writer.add(**began(1))
    note = only_note(tmp_path / "later")
    assert [one.name for one in note.journals] == ["0.journal", "1.journal"]
    assert (note.sglang_version, note.num_schedulers) == ("0.5.23", 2)


@pytest.mark.parametrize("torn", [b'{"constructed": {"a": 1}', b"\xff\xfe", b"[1]", b"7"])
def test_a_bad_line_costs_only_itself(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r-7.attach.json"
    lines = [{"pid": 7, **FIRST}, began(0), None, began(1)]
    path.write_bytes(b"".join((json.dumps(one).encode() if one else torn) + b"\n" for one in lines))
    assert [one.name for one in only_note(tmp_path).journals] == ["0.journal", "1.journal"]
