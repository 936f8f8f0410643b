"""The recorder's own promises: nothing it loses goes uncounted, and nothing that failed takes another along."""

from __future__ import annotations

import gc
import json
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from children import wait_for
from recorder_alone import Owner, Request, Thing, events, last_stats, raising
from specdiff.recorders import journal
from specdiff.recorders.build import build
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.capture.reading import Access
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.run import run_from_json
from specdiff.recorders.schema import NONE32, NONE64, Kind
from specdiff.recorders.wire import unpack_event
from strategies import RUN


def test_who_is_met_in_mid_life_has_not_arrived(owner: Owner, tmp_path: Path) -> None:
    late = Recorder(owner, tmp_path / "j", 1 << 20, RUN, late=True)
    late.numbers.meet(Thing())
    late.numbers.meet(Thing(), arrives=True)
    late.close()
    found = [
        unpack_event(Kind.ARRIVE, record.payload).fields[1]
        for record in journal.scan(tmp_path / "j").records
        if record.type == Kind.ARRIVE
    ]
    assert found == [NONE64, 0]


def test_who_is_left_out_is_counted_and_nothing_more(owner: Owner, tmp_path: Path) -> None:
    """Once, and in a ring for as long as the server has it, the last one longer: what is said of its batches is not of all who
    are in them."""
    ring = Recorder(owner, tmp_path / "j", 1 << 20, RUN, choice=Choice(only=("a",)), ring_s=0.08)
    there = [Request("a"), Request("b")]
    for number, one in enumerate([*there, Request("c"), Request("d")]):
        assert ring.numbers.meet(one, arrives=True) == (~number if number else 0)
    del one
    wait_for(lambda: ring.writer.breaks > 10, "turns")
    ring.close()
    found = journal.scan(tmp_path / "j").records
    types = {record.type for record in found}
    assert Kind.GAP in types and Kind.ARRIVE not in types
    said = [json.loads(one.payload) for one in found if one.type == journal.Type.REQUEST]
    named = {one["qid"]: one for one in said}
    assert named.pop(0)["rid"] == "a"
    assert named == {qid: {"qid": qid, "rid": "", "left_out": True} for qid in (1, 3)}


@pytest.mark.parametrize("choice", [Choice(one_in=2), Choice(only=("5", "a"))])
def test_whatever_an_id_is_it_chooses_as_it_is_written_down(
    choice: Choice, owner: Owner, tmp_path: Path
) -> None:
    """Half a surrogate pair is what a client's JSON may hold; nobody is recorded who was not to be, and nothing fails."""
    rids: list[Any] = ["a", "b", "d", "\ud800", "\ud801", 5, 6, 7, None]
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN, choice=choice)
    reqs = [Request(rid) for rid in rids]
    taken = [str(req.rid) for req in reqs if recorder.numbers.meet(req, arrives=True) >= 0]
    recorder.close()
    assert 0 < len(taken) < len(rids)
    assert taken == [rid for rid in map(str, rids) if choice.takes(rid)]
    assert list(build(tmp_path / "j").rids) == taken and recorder.exceptions == 0


@pytest.mark.parametrize("ring_s", [0.4, None])
def test_behind_what_the_writer_breaks_off_books_are_to_begin_anew(
    ring_s: float | None, owner: Owner, tmp_path: Path
) -> None:
    """Each segment of a ring is the first one, one day; and a record that could not be packed leaves a gap."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN, ring_s=ring_s)
    for _ in range(2):
        recorder.end_turn()
        recorder.seeding.wanted, seen = False, recorder._breaks
        if ring_s is None:
            recorder.end_turn()
            assert not recorder.seeding.wanted
            recorder.queue(Kind.FINISH, (raising(ValueError()),), 0, recorder.stamp())
        wait_for(partial(_broken_off, recorder, seen), "what breaks it off")
        recorder.end_turn()
        assert recorder.seeding.wanted
    recorder.close()


def _broken_off(recorder: Recorder, seen: int) -> bool:
    return recorder.writer.breaks > seen


def test_whole_steps_are_dropped_counted_and_marked_where_they_are_missing(
    recorder: Recorder, owner: Owner, tmp_path: Path
) -> None:
    kept = [number for number in range(199) if recorder.emit(Kind.ARRIVE, (number, 0))]
    assert 0 < len(kept) < 199
    time.sleep(0.3)  # the writer has caught up
    assert not recorder.emit(Kind.ARRIVE, (199, 0))  # the rest of a step that lost its beginning
    owner.forward_ct += 1
    assert recorder.emit(Kind.ARRIVE, (1000, 0))
    recorder.close()
    found = events(tmp_path / "j")
    gaps = [place for place, (kind, _) in enumerate(found) if kind is Kind.GAP]
    assert [number for kind, number in found if kind is Kind.ARRIVE] == [*kept, 1000]
    assert sum(found[place][1] for place in gaps) == 200 - len(kept)
    assert found[gaps[-1] + 1] == (Kind.ARRIVE, 1000)
    stats = last_stats(tmp_path / "j")
    assert (stats.dropped, stats.events) == (200 - len(kept), len(found))


def test_who_records_is_in_the_file_at_once(recorder: Recorder, tmp_path: Path) -> None:
    """A server that is killed within the writer's first 50 ms leaves a recording all the same."""
    (record,) = journal.scan(tmp_path / "j").records
    assert run_from_json(record.payload) == RUN


def test_gap_at_the_very_end_is_marked_too(recorder: Recorder, tmp_path: Path) -> None:
    kept = sum(recorder.emit(Kind.ARRIVE, (number, 0)) for number in range(200))
    recorder.close()
    assert events(tmp_path / "j")[-1] == (Kind.GAP, 200 - kept)


def test_pending_event_comes_before_the_next_one(recorder: Recorder, tmp_path: Path) -> None:
    recorder.emit_later(lambda: recorder.emit(Kind.ABORT, (1, 0)))
    recorder.emit(Kind.ARRIVE, (2, 0))
    recorder.emit_later(lambda: recorder.emit(Kind.ABORT, (3, 0)))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.ABORT, 1), (Kind.ARRIVE, 2), (Kind.ABORT, 3)]


def test_what_is_no_int_is_absent(recorder: Recorder, tmp_path: Path) -> None:
    recorder.emit(Kind.FILTER, (0, 1, None, True, object(), 0), ([],))
    recorder.close()
    (record,) = (one for one in journal.scan(tmp_path / "j").records if one.type < 100)
    found = unpack_event(Kind.FILTER, record.payload)
    assert found.fields.tolist() == [0, 1, NONE64, 1, NONE64, 0]


def test_counter_that_a_request_lacks_is_absent_and_the_others_are_read() -> None:
    whole, lacking = Thing(), Thing()
    vars(whole).update(kv_committed_len=5, kv_allocated_len=8, spec_verify_ct=2)
    vars(lacking).update(kv_committed_len=6)
    access = Access.choose(whole)
    assert [*access.lengths([whole, whole])] == [[5, 5], [8, 8]]
    assert [*access.lengths([whole, lacking])] == [[5, 6], [8, NONE32]]
    assert [*access.after_result([lacking])] == [[6], [NONE32], [NONE32]]


def test_books_are_to_begin_anew_behind_whatever_is_missing(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap of the writer's own is one, too; where it fails, no event is lost with it."""
    recorder.end_turn()
    assert not recorder.seeding.wanted
    recorder.queue(Kind.ARRIVE, (raising(ValueError()),), 0, (1, 1))
    assert recorder.writer.flush(5)
    recorder.end_turn()
    assert recorder.seeding.wanted
    monkeypatch.setattr(recorder.numbers, "under_way", raising(ValueError()))
    recorder.seeding.processed(recorder, None)
    assert not recorder.seeding.wanted and recorder.dropped == 0 and recorder.exceptions == 2


def test_pending_event_that_fails_does_not_take_the_next_one_along(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.emit_later(raising(ValueError()))
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.GAP, 1), (Kind.ARRIVE, 1)]


def test_event_that_fails_on_the_writers_thread_leaves_a_gap_in_its_place(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.queue(Kind.FINISH, (raising(ValueError()),), 0, recorder.stamp())
    recorder.emit(Kind.ARRIVE, (2, 0))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.ARRIVE, 1), (Kind.GAP, 1), (Kind.ARRIVE, 2)]


def test_request_that_cannot_be_described_keeps_its_number(
    recorder: Recorder, tmp_path: Path
) -> None:
    assert recorder.numbers.meet(Thing()) == 0  # no rid
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.GAP, 1), (Kind.ARRIVE, 0)]
    records = journal.scan(tmp_path / "j").records
    assert len([item for item in records if item.type == journal.Type.REQUEST]) == 1


def test_what_cannot_be_described_later_is_told_apart(recorder: Recorder, tmp_path: Path) -> None:
    """A request is described where it is written, on another thread: its number stays, and the failure is counted."""
    req = Request("a")
    req.eos_token_ids = {"none of ours"}  # type: ignore[attr-defined]
    recorder.numbers.meet(req)
    recorder.numbers.meet(Request("b"))
    recorder.close()
    records = journal.scan(tmp_path / "j").records
    met = [json.loads(one.payload) for one in records if one.type == journal.Type.REQUEST]
    assert [(one["qid"], one["rid"]) for one in met] == [(0, "unreadable-0"), (1, "b")]
    assert recorder.exceptions == last_stats(tmp_path / "j").exceptions == 1


def test_no_request_lives_for_as_long_as_the_disk_hangs(recorder: Recorder, tmp_path: Path) -> None:
    """Nor what sglang hangs on its parameters, which is the request itself; and what was asked for is what it was then."""
    req = Request("a")
    req.sampling_params = Thing()  # type: ignore[attr-defined]
    req.sampling_params.custom_params = {"__req__": req}  # type: ignore[attr-defined]
    req.sampling_params.max_new_tokens = 7  # type: ignore[attr-defined]
    with recorder.writer._lock:  # as a write that does not return
        recorder.numbers.meet(req)
        req.sampling_params.max_new_tokens = 0  # type: ignore[attr-defined]
        gone = weakref.ref(req)
        del req
        gc.collect()
        assert gone() is None
    recorder.close()
    met = next(x for x in journal.scan(tmp_path / "j").records if x.type == journal.Type.REQUEST)
    assert json.loads(met.payload)["max_new_tokens"] == 7
