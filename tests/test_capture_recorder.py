"""The recorder counts everything it loses, and one failure never takes another event with it."""

from __future__ import annotations

import gc
import json
import sys
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from children import wait_for
from recorder_alone import Owner, RequestStub, Thing, events, hook, last_stats, raising
from specdiff.recorders import journal
from specdiff.recorders.build import build
from specdiff.recorders.capture import recorder as recorder_module
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.capture.reading import Access
from specdiff.recorders.capture.recorder import Recorder
from specdiff.recorders.capture.request_facts import RequestFacts
from specdiff.recorders.capture.request_probes import PROBES
from specdiff.recorders.capture.seed_event import emit_seed
from specdiff.recorders.capture.step_probes import PROBES as STEP_PROBES
from specdiff.recorders.run import run_from_json
from specdiff.recorders.schema import NONE32, NONE64, Kind
from specdiff.recorders.wire import ROW_WIDTH, unpack_event
from strategies import RUN


def test_a_request_first_seen_after_its_arrival_has_no_arrival(
    owner: Owner, tmp_path: Path
) -> None:
    """It may have arrived before a late recording began, or in any gap."""
    for late in (True, False):
        path = tmp_path / f"{late}"
        made = Recorder(owner, path, 1 << 20, RUN, late=late)
        made.numbers.register(RequestStub("a"))
        made.lost(ValueError())
        made.numbers.register(RequestStub("b"))
        made.numbers.register(RequestStub("c"), arrives=True)
        made.close()
        found = [
            unpack_event(Kind.ARRIVE, record.payload).fields[1]
            for record in journal.scan(path).records
            if record.type == Kind.ARRIVE
        ]
        assert found == [NONE64 if late else 0, NONE64, 0]


def test_a_request_that_is_not_chosen_is_only_noted(owner: Owner, tmp_path: Path) -> None:
    """It is noted once. In a ring it is noted while the server has it, and the last one longer.

    Without these notes, what is recorded of a batch would seem to be about all requests in it.
    """
    ring = Recorder(owner, tmp_path / "j", 1 << 20, RUN, choice=Choice(only=("a",)), ring_s=0.08)
    there = [RequestStub("a"), RequestStub("b")]
    for number, one in enumerate([*there, RequestStub("c"), RequestStub("d")]):
        assert ring.numbers.register(one, arrives=True) == (~number if number else 0)
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
def test_requests_with_unusual_ids_are_chosen_by_the_recorded_form_of_their_id(
    choice: Choice, owner: Owner, tmp_path: Path
) -> None:
    """A client's JSON may contain half a surrogate pair.

    Only chosen requests are recorded, and nothing fails.
    """
    rids: list[Any] = ["a", "b", "d", "\ud800", "\ud801", 5, 6, 7, None]
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN, choice=choice)
    reqs = [RequestStub(rid) for rid in rids]
    taken = [str(req.rid) for req in reqs if recorder.numbers.register(req, arrives=True) >= 0]
    recorder.close()
    assert 0 < len(taken) < len(rids)
    assert taken == [rid for rid in map(str, rids) if choice.takes(rid)]
    assert list(build(tmp_path / "j").rids) == taken and recorder.exceptions == 0


@pytest.mark.parametrize("ring_s", [0.4, None])
def test_books_begin_anew_after_a_new_segment_or_a_gap_of_the_writer(
    ring_s: float | None, owner: Owner, tmp_path: Path
) -> None:
    """Every segment of a ring becomes the first one some day.

    A record that could not be packed leaves a gap.
    """
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
    time.sleep(0.3)  # until the writer has caught up
    assert not recorder.emit(Kind.ARRIVE, (199, 0))  # the rest of a step whose beginning was lost
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


def test_a_step_is_dropped_for_a_second_at_most(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes no step gets requests, too. The second begins with the first lost event."""
    time_ns = 0
    monkeypatch.setattr(recorder_module, "now", lambda: time_ns)
    while recorder.emit(Kind.ARRIVE, (1, 0)):
        pass
    assert recorder.writer.flush(5)
    time_ns += 600_000_000
    assert not recorder.emit(Kind.ARRIVE, (2, 0))
    time_ns += 600_000_000
    assert recorder.emit(Kind.ARRIVE, (3, 0)) and recorder.dropped == 2


def test_steps_are_dropped_until_there_is_room_for_several(
    recorder: Recorder, owner: Owner
) -> None:
    """Otherwise a slow disk would leave a piece of every step."""
    with recorder.writer._lock:  # like a write that does not return
        for number in range(9):
            assert recorder.emit(Kind.ARRIVE, (number, 0))
        assert not recorder.queue(Kind.FINISH, (bytes,), 500, recorder.stamp())
        owner.forward_ct += 1
        assert recorder.writer.has_room(200) and not recorder.emit(Kind.ARRIVE, (9, 0))
    assert recorder.writer.flush(5)
    assert recorder.emit(Kind.ARRIVE, (10, 0)) and recorder.dropped == 2


def test_the_run_description_is_in_the_file_at_once(recorder: Recorder, tmp_path: Path) -> None:
    """So a server that is killed within the writer's first 50 ms still leaves a recording."""
    (record,) = journal.scan(tmp_path / "j").records
    assert run_from_json(record.payload) == RUN


def test_a_gap_at_the_very_end_is_marked_too(recorder: Recorder, tmp_path: Path) -> None:
    kept = sum(recorder.emit(Kind.ARRIVE, (number, 0)) for number in range(200))
    recorder.close()
    assert events(tmp_path / "j")[-1] == (Kind.GAP, 200 - kept)


def test_a_pending_event_comes_before_the_next_one(recorder: Recorder, tmp_path: Path) -> None:
    recorder.emit_later(lambda: recorder.emit(Kind.ABORT, (1, 0)))
    recorder.emit(Kind.ARRIVE, (2, 0))
    for number in (3, 4):
        recorder.emit_later(partial(recorder.emit, Kind.ABORT, (number, 0)))
    recorder.close()
    aborts = [(Kind.ABORT, number) for number in (1, 3, 4)]
    assert events(tmp_path / "j") == [aborts[0], (Kind.ARRIVE, 2), *aborts[1:]]


def test_a_value_that_is_not_an_int_is_recorded_as_absent(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.emit(Kind.FILTER, (0, 1, None, True, object(), 0), ([],))
    recorder.close()
    (record,) = (one for one in journal.scan(tmp_path / "j").records if one.type < 100)
    found = unpack_event(Kind.FILTER, record.payload)
    assert found.fields.tolist() == [0, 1, NONE64, 1, NONE64, 0]


def test_a_missing_counter_is_absent_and_the_others_are_read() -> None:
    whole, lacking = Thing(), Thing()
    vars(whole).update(kv_committed_len=5, kv_allocated_len=8, spec_verify_ct=2)
    vars(lacking).update(kv_committed_len=6)
    access = Access.choose(whole)
    assert [*access.lengths([whole, whole])] == [[5, 5], [8, 8]]
    assert [*access.lengths([whole, lacking])] == [[5, 6], [8, NONE32]]
    assert [*access.after_result([lacking])] == [[6], [NONE32], [NONE32]]


def test_books_begin_anew_after_every_gap(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap that the writer caused counts too.

    If the new beginning fails, no event is lost with it.
    """
    recorder.end_turn()
    assert not recorder.seeding.wanted
    recorder.queue(Kind.ARRIVE, (raising(ValueError()),), 0, (1, 1))
    assert recorder.writer.flush(5)
    recorder.end_turn()
    assert recorder.seeding.wanted
    recorder.seeding.done()
    recorder.lost(ValueError())
    assert not recorder.seeding.wanted  # not before the GAP is there
    recorder.emit(Kind.ARRIVE, (1, 0))
    assert recorder.seeding.wanted
    monkeypatch.setattr(recorder.numbers, "under_way", raising(ValueError()))
    emit_seed(recorder, None)
    assert not recorder.seeding.wanted and recorder.dropped == 1 and recorder.exceptions == 3


def test_a_recording_ends_with_a_turn_or_with_a_gap(recorder: Recorder, tmp_path: Path) -> None:
    """If a turn has no end, its last events are missing, whether the recorder or sglang ended it.

    A pending event reads its request when the turn ends, not later.
    """
    number = 2
    recorder.begin_turn()
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.begin_turn()  # sglang raised in the one before
    recorder.emit_later(lambda: recorder.emit(Kind.ARRIVE, (number, 0)))
    recorder.ending = True
    recorder.end_turn()
    assert recorder.ended
    number = 3
    recorder.close()
    whole = [(Kind.ARRIVE, 1), (Kind.GAP, 1), (Kind.ARRIVE, 2)]
    assert events(tmp_path / "j") == whole
    assert last_stats(tmp_path / "j").ended_early


def test_a_recording_that_ends_within_a_turn_ends_with_a_gap(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.begin_turn()
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.emit_later(partial(recorder.emit, Kind.ARRIVE, (2, 0)))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.ARRIVE, 1), (Kind.GAP, 1)]
    assert not last_stats(tmp_path / "j").ended_early


def test_an_extend_result_is_not_recorded_after_the_end(recorder: Recorder) -> None:
    """Its finish was not seen, so a release may have reset the lengths that it would read."""
    after, unread = STEP_PROBES["process"].after, object()
    recorder.ended = True
    after(recorder, (unread,), None)
    recorder.ended = False
    with pytest.raises(TypeError):
        after(recorder, (unread,), None)


def test_a_pending_event_that_fails_does_not_lose_the_next_one(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.emit_later(raising(ValueError()))
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.GAP, 1), (Kind.ARRIVE, 1)]


def test_an_event_that_fails_on_the_writers_thread_leaves_a_gap(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.emit(Kind.ARRIVE, (1, 0))
    recorder.queue(Kind.FINISH, (raising(ValueError()),), 0, recorder.stamp())
    recorder.emit(Kind.ARRIVE, (2, 0))
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.ARRIVE, 1), (Kind.GAP, 1), (Kind.ARRIVE, 2)]


@pytest.mark.parametrize("iteration", [1 << 32, -1, None, "8"])
@pytest.mark.parametrize("late", [False, True])
def test_an_iteration_that_does_not_fit_costs_only_its_own_events(
    iteration: Any, late: bool, owner: Owner, tmp_path: Path
) -> None:
    """A recording that begins late begins with a GAP, which needs an iteration, too."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN, late=late)
    owner.forward_ct = iteration
    recorder.emit(Kind.ARRIVE, (1, 0))
    owner.forward_ct = 8
    recorder.emit(Kind.ARRIVE, (2, 0))
    assert recorder.writer.flush(5)
    recorder.close()
    found = events(tmp_path / "j")
    assert found == [(Kind.GAP, 1)] * late + [(Kind.GAP, 1), (Kind.ARRIVE, 2)]
    assert recorder.exceptions == last_stats(tmp_path / "j").exceptions == 1


@pytest.mark.parametrize("payload", ["not bytes", (str,), (raising(ValueError()),)])
@pytest.mark.parametrize("stamp", [None, ("never", 1), (1, 1)])
def test_a_record_that_cannot_be_written_does_not_stop_those_behind_it(
    payload: Any, stamp: Any, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.writer.put(Kind.FINISH, payload, 0, stamp)
    recorder.emit(Kind.ARRIVE, (2, 0))
    assert recorder.writer.flush(5)
    recorder.close()
    gap = stamp == (1, 1)
    assert events(tmp_path / "j") == [(Kind.GAP, 1)] * gap + [(Kind.ARRIVE, 2)]
    assert recorder.exceptions == (1 if gap or stamp is None else 2)


def test_a_request_that_cannot_be_described_keeps_its_number(
    recorder: Recorder, tmp_path: Path
) -> None:
    assert recorder.numbers.register(Thing()) == 0  # no rid
    recorder.close()
    assert events(tmp_path / "j") == [(Kind.GAP, 1), (Kind.ARRIVE, 0)]
    records = journal.scan(tmp_path / "j").records
    assert len([item for item in records if item.type == journal.Type.REQUEST]) == 1


def test_a_request_that_cannot_be_described_on_writing_gets_a_distinct_name(
    recorder: Recorder, tmp_path: Path
) -> None:
    """Requests are described when they are written, on another thread.

    A request that fails keeps its number and is counted.
    """
    req = RequestStub("a")
    req.eos_token_ids = {"none of ours"}  # type: ignore[attr-defined]
    recorder.numbers.register(req)
    recorder.numbers.register(RequestStub("b"))
    recorder.close()
    records = journal.scan(tmp_path / "j").records
    met = [json.loads(one.payload) for one in records if one.type == journal.Type.REQUEST]
    assert [(one["qid"], one["rid"]) for one in met] == [(0, "unreadable-0"), (1, "b")]
    assert recorder.exceptions == last_stats(tmp_path / "j").exceptions == 1


def test_a_request_without_a_number_does_not_shift_the_names_of_the_others(
    owner: Owner, tmp_path: Path
) -> None:
    """No memory is left for an attribute of one request. It gets a number when it is next seen."""

    class Full(RequestStub):
        def __setattr__(self, name: str, value: Any) -> None:
            tried.append(name)
            if len(tried) == 1:
                raise MemoryError
            super().__setattr__(name, value)

    tried: list[str] = []
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    reqs = [RequestStub("a"), Full.__new__(Full), RequestStub("c"), RequestStub("d")]
    vars(reqs[1])["rid"] = "b"
    arrive = hook(recorder, lambda *_: None, PROBES["arrive"])
    for req in reqs:
        arrive(None, req)
    for req in (reqs[2], reqs[1]):
        recorder.emit(Kind.ABORT, (recorder.numbers.qid(req), 1))
    recorder.close()
    found = build(tmp_path / "j")
    assert found.rids == ("a", "c", "d", "b")
    assert [found.rids[qid] for qid in found.aborts.qid] == ["c", "b"]
    assert found.gaps.dropped.tolist() == [1]


@pytest.mark.parametrize("where", ["register", "write"])
def test_events_of_a_request_whose_record_was_lost_keep_a_name(
    where: str, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler raises after the request got its number, or its record cannot be packed."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    recorder.numbers.register(RequestStub("a"))
    lost = RequestStub("b")
    if where == "register":
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(recorder.numbers, "_announce", raising(KeyboardInterrupt()))
            recorder.numbers.register(lost)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(recorder, "_described", raising(MemoryError()))
            recorder.numbers.register(lost)
    recorder.numbers.register(RequestStub("c"))
    for req in (lost, RequestStub("d")):
        recorder.emit(Kind.ABORT, (recorder.numbers.qid(req), 1))
    recorder.close()
    found = build(tmp_path / "j")
    assert sorted(found.rids) == ["a", "c", "d", "forgotten-1"]
    assert [found.rids[qid] for qid in found.aborts.qid] == ["forgotten-1", "d"]
    assert found.gaps.dropped.tolist() == [1] * (where == "write")


@pytest.mark.parametrize("wanted", ["json_schema", "regex", "ebnf", "structural_tag", None])
def test_a_grammar_counts_from_its_specification_on(wanted: str | None) -> None:
    """When a request arrives, its grammar may not be compiled yet."""
    req: Any = RequestStub("a")
    req.sampling_params = Thing()
    if wanted is not None:
        setattr(req.sampling_params, wanted, "...")
    assert RequestFacts.of(req).has_grammar == (wanted is not None)
    req.grammar = object()
    assert RequestFacts.of(req).has_grammar


@pytest.mark.parametrize(("stop", "count"), [("</s>", 1), (["a", "b"], 2), ([], 0), (None, 0)])
def test_stop_strings_are_counted_not_recorded(stop: Any, count: int) -> None:
    req: Any = RequestStub("a")
    req.sampling_params = Thing()
    req.sampling_params.stop_strs = req.sampling_params.stop_regex_strs = stop
    told = RequestFacts.of(req).describe()["stop"]
    assert (told["num_strings"], told["num_regexes"]) == (count, count)
    assert "</s>" not in json.dumps(told)


@pytest.mark.parametrize("where", ["rid", "session_id", "stop_token_ids"])
def test_what_clients_send_counts_against_the_memory_limit(where: str, recorder: Recorder) -> None:
    """A disk hangs, and every client sends a megabyte of its own."""
    req = RequestStub("a")
    req.sampling_params = Thing()  # type: ignore[attr-defined]
    large = set(range(10_000)) if where == "stop_token_ids" else "a" * 250_000
    setattr(req.sampling_params if where == "stop_token_ids" else req, where, large)  # type: ignore[attr-defined]
    with recorder.writer._lock:  # like a write that does not return
        for _ in range(20):
            recorder.numbers.register(req)
        assert recorder.writer.stopped
        assert 15_000_000 < recorder.writer.waiting_bytes < 20_000_000


def test_an_event_counts_for_at_least_the_memory_that_it_takes(
    owner: Owner, tmp_path: Path
) -> None:
    """A result of many requests has a column for each of their counters, and its tokens."""
    recorder = Recorder(owner, tmp_path / "j", 1 << 20, RUN)
    numbers = [[1000 * i + j for j in range(100)] for i in range(ROW_WIDTH[Kind.RESULT])]
    tokens = list(range(10**6, 10**6 + 400))
    taken = sum(sys.getsizeof(one) for some in (*numbers, tokens) for one in (some, *some))
    with recorder.writer._lock:  # like a write that does not return
        before = recorder.writer.waiting_bytes
        recorder.emit(Kind.RESULT, (None, 1, *(NONE64,) * 4, len(tokens), 100), numbers, tokens)
        assert taken <= recorder.writer.waiting_bytes - before < 2 * taken
    recorder.close()
    assert build(tmp_path / "j").tokens.tolist() == tokens


def test_one_large_request_does_not_stop_the_recording(recorder: Recorder, tmp_path: Path) -> None:
    """It is larger than all memory that may be used while a disk hangs."""
    recorder.numbers.register(RequestStub("a" * 6_000_000))
    assert not recorder.writer.stopped and recorder.writer.flush(20)
    recorder.close()
    met = next(x for x in journal.scan(tmp_path / "j").records if x.type == journal.Type.REQUEST)
    assert len(json.loads(met.payload)["rid"]) == 6_000_000


def test_a_hanging_disk_keeps_no_request_alive(recorder: Recorder, tmp_path: Path) -> None:
    """Not even if sglang attaches the request to its own parameters.

    The parameters are recorded as they were at that time.
    """
    req = RequestStub("a")
    req.sampling_params = Thing()  # type: ignore[attr-defined]
    req.sampling_params.custom_params = {"__req__": req}  # type: ignore[attr-defined]
    req.sampling_params.max_new_tokens = 7  # type: ignore[attr-defined]
    with recorder.writer._lock:  # like a write that does not return
        recorder.numbers.register(req)
        req.sampling_params.max_new_tokens = 0  # type: ignore[attr-defined]
        gone = weakref.ref(req)
        del req
        gc.collect()
        assert gone() is None
    recorder.close()
    met = next(x for x in journal.scan(tmp_path / "j").records if x.type == journal.Type.REQUEST)
    assert json.loads(met.payload)["max_new_tokens"] == 7
