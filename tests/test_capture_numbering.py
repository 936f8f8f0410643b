"""The numbers of requests, batches and results, and which requests are recorded."""

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


def test_copied_objects_and_those_of_other_recorders_are_new() -> None:
    announced: list[int] = []
    one, two = Numbering(lambda n, *_: announced.append(n)), Numbering(lambda n, *_: None)
    req = Thing()
    assert one.qid(req) == 0 == one.qid(req) and one.knows(req)
    assert not two.knows(req)
    copy = Thing()
    copy.__dict__.update(req.__dict__)
    assert not one.knows(copy)
    assert one.register(copy) == 1 and one.pick([req, copy]).qids == [0, 1]
    assert announced == [0, 1]
    batch = Thing()
    assert one.batch(batch) == 0 == one.batch(batch)
    other = Thing()
    other.__dict__.update(batch.__dict__)
    assert one.batch(other) == 1


@given(st.lists(st.lists(st.integers(0, 3), unique=True), max_size=8))
def test_requests_keep_their_numbers_when_batches_alternate(batches: list[list[int]]) -> None:
    numbers = Numbering(lambda n, *_: None)
    reqs = [Thing() for _ in range(4)]
    known = [numbers.qid(req) for req in reqs]
    merged: list[Any] = []  # sglang extends a batch's list in place
    for batch in batches:
        merged += [reqs[i] for i in batch]
        assert numbers.pick([reqs[i] for i in batch]).qids == [known[i] for i in batch]
        assert numbers.pick(merged).qids == [known[reqs.index(req)] for req in merged]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 20))
def test_only_recorded_requests_are_picked_from_a_batch(taken: list[bool], size: int) -> None:
    """The same holds for a list of tokens.

    If it does not divide evenly among the requests, no tokens are picked.
    """
    reqs = [Thing() for _ in taken]
    wanted = [i for i, one in enumerate(taken) if one]
    numbers = Numbering(lambda *_: None, takes=lambda req: reqs.index(req) in wanted)
    met = [numbers.qid(req) for req in reqs]
    assert met == [n if one else ~n for n, one in enumerate(taken)]
    assert all(map(numbers.knows, reqs))
    picked = numbers.pick(reqs)
    assert picked.reqs == [reqs[i] for i in wanted] and picked.qids == wanted
    assert list(picked.of(met)) == wanted and numbers.count(reqs) == len(wanted)
    assert picked.none_recorded == (not wanted)
    width, rest = divmod(size, len(taken))
    parts = [i * width + at for i in wanted for at in range(width)]
    whole = list(range(size))
    assert picked.runs(whole) == (whole if all(taken) else [] if rest else parts)


def test_an_idle_servers_requests_are_not_kept_alive() -> None:
    numbers = Numbering(lambda n, *_: None)
    numbers.pick([Thing()]), numbers.pick([Thing(), Thing()])
    numbers.pick([])
    assert not numbers.live


def test_an_ended_request_is_not_kept_alive_by_one_that_goes_on() -> None:
    """One long request is left of a batch that never changes again.

    The launch under way still refers to both.
    """
    numbers, result = Numbering(lambda n, *_: None), Thing()
    long, short = Thing(), Thing()
    both = numbers.pick([long, short])
    numbers.launch(result, True, both)
    numbers.pick([short])
    numbers.end_turn()
    assert numbers.pick([long, short]) is both  # as long as the launch is under way
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


def test_live_requests_can_be_read_from_another_thread() -> None:
    """The writer's thread asks about a ring's requests, and a garbage collection may run in it."""
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


def test_results_are_paired_with_their_launch_in_any_order() -> None:
    numbers = Numbering(lambda n, *_: None)
    first, idle, second = Thing(), Thing(), Thing()
    assert [numbers.launch(first, True), numbers.launch(idle, False)] == [0, 1]
    assert numbers.launch(second, True) == 2
    assert numbers.under_way(None) == [0, 2]
    assert numbers.answered(second) == 2 and numbers.under_way(2) == []
    assert numbers.under_way(None) == [0] and numbers.answered(first) == 0
    assert numbers.answered(Thing()) is None


def test_results_without_a_tag_are_paired_with_the_oldest_launch() -> None:
    numbers = Numbering(lambda n, *_: None)
    for _ in range(2):
        numbers.launch(Thing(), True)
    assert [numbers.answered(Thing()) for _ in range(3)] == [0, 1, None]


def test_results_from_before_a_late_start_are_paired_with_no_launch() -> None:
    """With overlap, one result is under way.

    It is processed after the first launch that has a number.
    """
    numbers = Numbering(lambda n, *_: None, late=True)
    first, second = Thing(), Thing()
    numbers.launch(first, True)
    assert numbers.answered(Thing()) is None
    numbers.launch(second, True)
    assert [numbers.answered(first), numbers.answered(second)] == [0, 1]
    numbers.launch(Thing(), True)
    assert numbers.answered(Thing()) == 2  # a copy of the result: no older one can come any more


def test_objects_without_attributes_keep_their_numbers() -> None:
    numbers = Numbering(lambda n, *_: None)
    one, two = Slotted(), Slotted()
    assert [numbers.batch(thing) for thing in (one, two, one, two)] == [0, 1, 0, 1]


def test_the_result_of_a_dropped_launch_is_paired_with_no_launch() -> None:
    numbers = Numbering(lambda n, *_: None)
    result = Thing()
    numbers.mark_lost(numbers.launch(result, True))
    assert numbers.answered(result) is None
    assert not numbers._lost_launches  # a server that runs for long may drop many


def test_a_batch_that_begins_anew_gets_a_new_number() -> None:
    numbers = Numbering(lambda n, *_: None)
    tagged, slotted = Thing(), Slotted()
    assert [numbers.batch(one) for one in (tagged, slotted)] == [0, 1]
    for one in (tagged, slotted):
        numbers.renumber(one)
    assert [numbers.batch(one) for one in (tagged, slotted, tagged, slotted)] == [2, 3, 2, 3]
