"""Rings, which keep only the last seconds: what they hold on request, after a kill, and when a law breaks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from children import rig, specdiff, wait_for
from journalled import Record, records_of
from specdiff.cli.inputs import bundled
from specdiff.recorders import hdf5, journal
from specdiff.recorders.build import build
from specdiff.recorders.capture.ring import Ring
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.run import Stats
from specdiff.recorders.schema import Kind
from specdiff.recorders.wire import NUM_FIELDS, pack_event
from specdiff.replay import spec
from specdiff.replay.verdict import Verdict, replay
from test_attach import attach, same_as_its_release
from test_record_server import ask, recorded_server

STATS = Stats(0, 0, 0, None, None, None, None, 0, False)
RING_S = 0.4
MIX = bundled() / "0.5.23-random.h5"
REQUEST = journal.Type.REQUEST


def handed_over(records: list[Record], writer: JournalWriter, seconds: float) -> None:
    """Put the records into the writer, spread evenly over `seconds`."""
    began = time.monotonic()
    for at, (type, payload) in enumerate(records):
        writer.put(type, payload, len(payload))
        time.sleep(max(0.0, began + seconds * at / len(records) - time.monotonic()))


def test_a_ring_is_the_end_of_the_whole_recording(tmp_path: Path) -> None:
    """Rows still belong to their requests although earlier requests are gone, and the books equal those of the release."""
    whole = hdf5.load(MIX)
    run, *records = records_of(whole)
    writer = JournalWriter(
        tmp_path / "r-1-0.journal",
        journal.frame(*run),
        1 << 30,
        lambda closed: STATS,
        print,
        ring_s=RING_S,
    )
    handed_over(records, writer, 4 * RING_S)
    assert writer.keep(tmp_path / "r-1-0.1.journal", 5) and writer.waiting_bytes == 0
    writer.close()
    kept, left = (build(tmp_path / name) for name in ("r-1-0.1.journal", "r-1-0.journal"))
    assert len(list((tmp_path / "r-1-0.journal").iterdir())) <= 10
    for ring in (kept, left):
        count = len(ring.events.kind) - 1
        assert 0.2 * len(whole.events.kind) < count < 0.6 * len(whole.events.kind)
        assert ring.events.kind[0] == Kind.GAP and ring.gaps.dropped.tolist() == [1]
        for name in ("kind", "iteration", "time_ns"):
            expected = getattr(whole.events, name)[-count:]
            assert np.array_equal(getattr(ring.events, name)[1:], expected), name
        assert 0 < len(ring.rids) < len(whole.rids)
        for name in ("result_rows", "prepare_rows", "finishes", "releases"):
            ours = [ring.rids[qid] for qid in getattr(ring, name).qid]
            theirs = [whole.rids[qid] for qid in getattr(whole, name).qid]
            assert ours == theirs[len(theirs) - len(ours) :], name
        found = replay(ring, spec.parse("sglang==0.5.23"), spec.parse("observed"))
        assert found.verdict is Verdict.SAME
        assert sum(one.num_compared for one in found.quantities) > 100


@pytest.mark.parametrize("torn", [b"", journal.HEADER[:5], journal.HEADER])
def test_a_kill_while_a_segment_is_started_costs_no_other_segment(
    torn: bytes, tmp_path: Path
) -> None:
    run, *records = records_of(hdf5.load(MIX))
    first = journal.frame(*run)
    writer = JournalWriter(tmp_path / "j", first, 1 << 30, lambda _: STATS, print, ring_s=3600)
    handed_over(records, writer, 0)
    writer.close()
    (tmp_path / "j" / "00000002.segment").write_bytes(torn)
    assert build(tmp_path / "j").events.kind.tolist() == hdf5.load(MIX).events.kind.tolist()


def test_a_ring_that_cannot_start_a_segment_leaves_the_servers_files_alone(tmp_path: Path) -> None:
    """The server closed our descriptor, and a file of its own got the same number. Then the folder is deleted."""
    run, *_ = records_of(hdf5.load(MIX))
    first = journal.frame(*run)
    writer = JournalWriter(tmp_path / "j", first, 1 << 30, lambda _: STATS, print, ring_s=3600)
    theirs = os.open(tmp_path / "theirs", os.O_CREAT | os.O_WRONLY)
    os.dup2(theirs, writer._file.fd)
    number = writer._file.fd
    assert writer.keep(tmp_path / "kept", 5)
    assert os.write(number, b"still theirs") == 12
    shutil.rmtree(tmp_path / "j")
    assert not writer.keep(tmp_path / "again", 5) and not (tmp_path / "again").exists()
    writer.close()
    os.close(number)
    os.close(theirs)


def test_a_ring_of_one_segment_is_the_whole_recording(tmp_path: Path) -> None:
    run, *records = records_of(hdf5.load(MIX))
    first = journal.frame(*run)
    writer = JournalWriter(tmp_path / "j", first, 1 << 30, lambda _: STATS, print, ring_s=3600)
    handed_over(records, writer, 0)
    writer.close()
    assert build(tmp_path / "j").events.kind.tolist() == hdf5.load(MIX).events.kind.tolist()


def test_a_request_that_ended_is_named_for_a_while_and_then_forgotten(tmp_path: Path) -> None:
    """A late result may still belong to it. Later it must be forgotten, because a server may run for weeks.

    Request 0 finishes, request 1 disappears without a finish, request 2 goes on. Request 3 is
    aborted while it runs, so it goes on until its finish; request 4 is aborted in the queue.
    Request 5 was forgotten before a late event names it.
    """
    ring = Ring(tmp_path / "j", 8 * 0.1, lambda number: number != 1)
    ring.turned_over()
    for number in range(5):
        ring.note(journal.Type.REQUEST, json.dumps({"qid": number}).encode())
    for number in (0, 5):
        values = (number, *(0,) * (NUM_FIELDS[Kind.FINISH] - 1))
        ring.note(Kind.FINISH, pack_event(Kind.FINISH, 1, 1, values))
    for number, from_queue in ((3, 0), (4, 1), (5, 1)):
        ring.note(Kind.ABORT, pack_event(Kind.ABORT, 1, 1, (number, from_queue)))
    named = []
    for seconds in (0, 0.1, 0):
        ring.turned_over()
        named.append([json.loads(one)["qid"] for type, one in ring.head() if type == REQUEST])
        time.sleep(seconds)
    assert named == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 3]]


def test_every_segment_begins_with_the_newest_run_attributes(tmp_path: Path) -> None:
    """They change: a server gets new weights, for example."""
    ring = Ring(tmp_path / "j", 1, lambda number: True)
    for payload in (b"old", b"new"):
        ring.note(journal.Type.RUN, payload)
        assert ring.head()[0] == (journal.Type.RUN, payload)


@pytest.mark.live
def test_flush_sigusr1_and_a_kill_each_leave_a_recording_of_the_ring(tmp_path: Path) -> None:
    """After `flush` and SIGUSR1 the server goes on. What a SIGKILL leaves is recovered."""
    folder = tmp_path / "r"
    options = ("--ring", "4s")
    with recorded_server("0.5.23", folder, "--no-experts", options=options) as (port, parent):
        ask(port, 30, "--no-aborts")
        load = threading.Thread(target=ask, args=(port, 60, "--no-aborts", "--seed", "4"))
        load.start()
        flushed = Path(attach(folder, "flush")[0].strip())
        parent.send_signal(signal.SIGUSR1)
        load.join()
        wait_for(lambda: len(list(folder.glob("*.journal"))) > 1, "what SIGUSR1 keeps")
        (door,) = {json.loads(path.read_text().splitlines()[0])["pid"] for path in _notes(folder)}
        os.kill(door, signal.SIGKILL)
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=120)
    paths = sorted(folder.glob("*.h5"))
    assert flushed in paths and len(paths) == 3
    assert not list(folder.glob("*.journal")) and specdiff("info", paths[0]).returncode == 0
    assert sum(same_as_its_release(hdf5.load(path)) for path in paths) > 500
    for path in paths:
        times = hdf5.load(path).events.time_ns
        assert times[-1] - times[0] < 7e9


def _notes(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.attach.json") if '"journal"' in path.read_text()]


@pytest.mark.live
def test_a_broken_law_saves_the_ring_up_to_the_breach(tmp_path: Path) -> None:
    """Records the real 0.5.12. The log names the law once in the length of the ring, and the server runs to its end."""
    command = rig("0.5.12", "random", "--seed", "1", "--requests", "1500")
    done = specdiff("record", "-o", tmp_path, "--ring", "60s", "--", *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("but the tokens returned have") == 1
    kept, whole = (hdf5.load(path) for path in sorted(tmp_path.glob("*.h5")))
    assert 0 < len(kept.events.kind) < len(whole.events.kind)
    assert np.array_equal(kept.events.kind, whole.events.kind[: len(kept.events.kind)])
