"""Which object is which: requests, batches, results, and who of them is recorded."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from recorder_alone import Thing
from specdiff.recorders.capture.numbering import Numbering


class Slotted:
    __slots__ = ("value",)


def test_copies_and_other_recorders_objects_are_new() -> None:
    announced: list[int] = []
    one, two = Numbering(lambda n, *_: announced.append(n)), Numbering(lambda n, *_: None)
    req = Thing()
    assert one.qid(req) == 0 == one.qid(req) and one.knows(req)
    assert not two.knows(req)
    copy = Thing()
    copy.__dict__.update(req.__dict__)
    assert not one.knows(copy)
    assert one.meet(copy) == 1 and one.pick([req, copy]).qids == [0, 1]
    assert announced == [0, 1]
    batch = Thing()
    assert one.batch(batch) == 0 == one.batch(batch)
    other = Thing()
    other.__dict__.update(batch.__dict__)
    assert one.batch(other) == 1


@given(st.lists(st.lists(st.integers(0, 3), unique=True), max_size=8))
def test_requests_keep_their_numbers_whichever_batches_take_turns(batches: list[list[int]]) -> None:
    numbers = Numbering(lambda n, *_: None)
    reqs = [Thing() for _ in range(4)]
    known = [numbers.qid(req) for req in reqs]
    merged: list[Any] = []  # sglang extends a batch's list in place
    for batch in batches:
        merged += [reqs[i] for i in batch]
        assert numbers.pick([reqs[i] for i in batch]).qids == [known[i] for i in batch]
        assert numbers.pick(merged).qids == [known[reqs.index(req)] for req in merged]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 20))
def test_of_a_batch_those_are_picked_that_are_recorded(taken: list[bool], size: int) -> None:
    """And of a list of tokens their parts; where it cannot be shared out, nobody knows whose is whose."""
    reqs = [Thing() for _ in taken]
    wanted = [i for i, one in enumerate(taken) if one]
    numbers = Numbering(lambda *_: None, takes=lambda req: reqs.index(req) in wanted)
    met = [numbers.qid(req) for req in reqs]
    assert met == [n if one else ~n for n, one in enumerate(taken)]
    assert all(map(numbers.knows, reqs))
    picked = numbers.pick(reqs)
    assert picked.reqs == [reqs[i] for i in wanted] and picked.qids == wanted
    assert list(picked.of(met)) == wanted and numbers.count(reqs) == len(wanted)
    assert picked.nobody == (not wanted)
    width, rest = divmod(size, len(taken))
    parts = [i * width + at for i in wanted for at in range(width)]
    whole = list(range(size))
    assert picked.runs(whole) == (whole if all(taken) else [] if rest else parts)


def test_idle_server_keeps_no_request_alive() -> None:
    numbers = Numbering(lambda n, *_: None)
    numbers.pick([Thing()]), numbers.pick([Thing(), Thing()])
    numbers.pick([])
    assert not numbers.live


def test_who_ended_is_not_kept_alive_by_who_goes_on() -> None:
    """One long request is left of a batch, which never changes again; the launch that is under way has all of them."""
    numbers, result = Numbering(lambda n, *_: None), Thing()
    long, short = Thing(), Thing()
    both = numbers.pick([long, short])
    numbers.launch(result, True, both)
    numbers.pick([short])
    numbers.end_turn()
    assert numbers.pick([long, short]) is both  # so long as it is under way
    numbers.launch(result, True, numbers.pick([long]))
    ended = weakref.ref(short)
    del short, both
    assert ended() is not None
    numbers.end_turn()
    assert ended() is None and numbers.pick([long]).qids == [0]
    numbers.end_turn()  # nothing was launched
    going = weakref.ref(long)
    del long
    assert going() is None


def test_who_is_alive_is_said_while_others_ask() -> None:
    """The writer's thread asks of a ring's requests, and may collect garbage there."""
    numbers, keep, ended = Numbering(lambda n, *_: None), [Thing() for _ in range(300)], False
    known = [(numbers.qid(req), req) for req in keep]

    def ask() -> None:
        while not ended:
            gc.collect(0)
            for number in range(300):
                assert number in numbers.live

    other = threading.Thread(target=ask)
    other.start()
    try:
        for _ in range(200):
            for _ in range(20):
                cycle = Thing()
                cycle.me = cycle  # type: ignore[attr-defined]
                numbers.qid(cycle)
            assert numbers.alive()[:300] == known
    finally:
        ended = True
        other.join()


def test_results_answer_their_launch_in_any_order() -> None:
    numbers = Numbering(lambda n, *_: None)
    first, idle, second = Thing(), Thing(), Thing()
    assert [numbers.launch(first, True), numbers.launch(idle, False)] == [0, 1]
    assert numbers.launch(second, True) == 2
    assert [numbers.answered(second), numbers.answered(first)] == [2, 0]
    assert numbers.answered(Thing()) is None


def test_results_without_a_tag_answer_the_oldest_launch() -> None:
    numbers = Numbering(lambda n, *_: None)
    for _ in range(2):
        numbers.launch(Thing(), True)
    assert [numbers.answered(Thing()) for _ in range(3)] == [0, 1, None]


def test_results_from_before_a_late_start_answer_none() -> None:
    """With overlap one is under way, and processed behind the first launch that is numbered."""
    numbers = Numbering(lambda n, *_: None, late=True)
    first, second = Thing(), Thing()
    numbers.launch(first, True)
    assert numbers.answered(Thing()) is None
    numbers.launch(second, True)
    assert [numbers.answered(first), numbers.answered(second)] == [0, 1]


def test_objects_that_take_no_attributes_are_remembered() -> None:
    numbers = Numbering(lambda n, *_: None)
    one, two = Slotted(), Slotted()
    assert [numbers.batch(thing) for thing in (one, two, one, two)] == [0, 1, 0, 1]


def test_result_of_a_dropped_launch_refers_to_nothing() -> None:
    numbers = Numbering(lambda n, *_: None)
    result = Thing()
    numbers.lose(numbers.launch(result, True))
    assert numbers.answered(result) is None


def test_a_batch_of_others_begins_anew_whatever_it_takes() -> None:
    numbers = Numbering(lambda n, *_: None)
    tagged, slotted = Thing(), Slotted()
    assert [numbers.batch(one) for one in (tagged, slotted)] == [0, 1]
    for one in (tagged, slotted):
        numbers.begin_anew(one)
    assert [numbers.batch(one) for one in (tagged, slotted, tagged, slotted)] == [2, 3, 2, 3]
