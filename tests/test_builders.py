"""Several processes build a recording from the same journal, and some of them are killed."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from pathlib import Path

import pytest

from children import SPECDIFF, python, specdiff
from specdiff.cli.main import SAME
from specdiff.recorders import hdf5
from specdiff.recorders.journal import HEADER, Type, frames
from specdiff.recorders.recording import Recording
from specdiff.recorders.recover import DAMAGED, NotRecovered, Recovered, recover, recover_journal
from specdiff.recorders.run import to_json
from specdiff.recorders.schema import Kind
from specdiff.recorders.scratch import scratch
from specdiff.recorders.wire import pack_event
from strategies import RUN

WHO = (Type.RUN, to_json(RUN).encode())
GAP = (Kind.GAP, pack_event(Kind.GAP, 1, 0, (2,)))  # before the first launch
WHOLE = HEADER + frames([WHO, GAP])
NAME = f"{RUN.run_id}-{RUN.pid}-0.journal"

# argv: a recording, and where to write it. The process is killed after it has created its file,
# before anything is in it.
KILLED = """
import os, sys
from pathlib import Path
from specdiff.recorders import hdf5
hdf5._image = lambda recording: os._exit(9)
hdf5.save(hdf5.load(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def left_in(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_a_second_builder_waits_and_names_what_the_first_has_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journal := tmp_path / NAME).write_bytes(WHOLE)
    go_on, begun, image = threading.Event(), threading.Event(), hdf5._image

    def slow(recording: Recording) -> bytes:
        begun.set()
        assert go_on.wait(60)
        return image(recording)

    monkeypatch.setattr(hdf5, "_image", slow)
    found: list[object] = []
    first = threading.Thread(target=lambda: found.append(recover_journal(journal)))
    first.start()
    assert begun.wait(60)
    command = [*SPECDIFF, "recover", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
        assert second.stderr is not None
        waiting = f"specdiff: {journal}: waiting for another process that builds it\n"
        assert second.stderr.readline().decode() == waiting
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1)
        go_on.set()
        said, complained = second.communicate(timeout=60)
    first.join()
    (outcome,) = found
    assert isinstance(outcome, Recovered)
    assert (second.returncode, said.decode().split()) == (SAME, [str(outcome.path)]), complained
    assert b"1 events, 2 dropped" in complained and b"kept" not in complained
    assert list(tmp_path.iterdir()) == [outcome.path]


def test_recovering_a_journal_that_is_already_built_is_no_failure(tmp_path: Path) -> None:
    (journal := tmp_path / NAME).write_bytes(WHOLE)
    first, second = recover_journal(journal), recover_journal(journal)
    assert isinstance(first, Recovered) and first == second


def test_a_recording_is_built_even_if_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cleared, because without locks nobody knows which files are in use."""

    def unsupported(file: object, how: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / NAME).write_bytes(WHOLE)
    (tmp_path / "a.h5.0123abcd.tmp").touch()
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, Recovered) and left_in(tmp_path) == [".h5", ".tmp"]


def test_a_damaged_journal_that_is_already_built_is_named_at_its_new_place(tmp_path: Path) -> None:
    damaged = bytearray(HEADER + frames([WHO, GAP, GAP, GAP]))
    damaged[len(WHOLE) + 20] ^= 1
    (journal := tmp_path / NAME).write_bytes(damaged)
    first, second = recover_journal(journal), recover_journal(journal)
    assert isinstance(first, Recovered) and first == second
    assert first.damaged == tmp_path / (NAME + DAMAGED) and first.damaged.exists()


@pytest.mark.parametrize("name", [NAME.replace("-0", "-1"), f"other-{NAME}", "x.journal"])
def test_a_missing_journal_is_not_confused_with_the_recording_of_another(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(WHOLE)
    recover(tmp_path)
    outcome = recover_journal(tmp_path / name)
    assert isinstance(outcome, NotRecovered) and "No such file" in outcome.why


def test_two_processes_that_save_the_same_name_do_not_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_recording: Path
) -> None:
    """A second process opens its file while the first is about to rename its own, and is killed."""
    recording, path = hdf5.load(real_recording), tmp_path / "a.h5"
    load = hdf5.load

    def overtaken(written: Path) -> Recording:
        found = load(written)
        assert python(KILLED, real_recording, path).returncode == 9
        return found

    with monkeypatch.context() as patched:
        patched.setattr(hdf5, "load", overtaken)
        hdf5.save(recording, path)
    assert hdf5.is_saved(recording, path)


def test_the_temporary_file_of_a_killed_builder_is_ignored_and_cleared(
    tmp_path: Path, real_recording: Path
) -> None:
    path = tmp_path / "a.h5"
    for _ in range(2):  # the second process clears what the first has left
        assert python(KILLED, real_recording, path).returncode == 9
        assert left_in(tmp_path) == [".tmp"]
    hdf5.save(hdf5.load(real_recording), tmp_path / "b.h5")
    assert left_in(tmp_path) == [".h5", ".tmp"]
    assert specdiff("info", tmp_path).returncode == SAME
    (tmp_path / "notes.tmp").touch()  # not specdiff's file
    with scratch(tmp_path / "c.h5") as held:
        recover(tmp_path)
        assert left_in(tmp_path) == [".h5", ".tmp", ".tmp"] and Path(held.name).exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.h5", "notes.tmp"]


def test_a_recording_that_cannot_be_read_back_is_discarded_and_the_journal_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journal := tmp_path / NAME).write_bytes(WHOLE)
    image = hdf5._image
    monkeypatch.setattr(hdf5, "_image", lambda recording: image(recording)[:-100])
    (outcome,) = recover(tmp_path)
    assert isinstance(outcome, NotRecovered) and not outcome.live
    assert "the file just written cannot be read back" in outcome.why
    assert "The journal is kept" in outcome.why and "opy" not in outcome.why
    assert f"specdiff recover {tmp_path}" in outcome.why
    assert list(tmp_path.iterdir()) == [journal]
