"""Seeds: if recording begins on a running server, the books of requests under way equal those of a whole recording."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from children import VERSIONS, on_demand
from journalled import same_content
from specdiff.cli.main import run as run_specdiff
from specdiff.recorders import hdf5, journal
from specdiff.recorders.build import build
from specdiff.recorders.capture.config import DIR
from specdiff.recorders.capture.writer import JournalWriter
from specdiff.recorders.recording import Recording
from specdiff.recorders.runs import num_dropped
from specdiff.recorders.schema import NONE64, Kind
from specdiff.recorders.seeds import plan
from specdiff.recorders.wire import NUM_FIELDS, ROW_WIDTH, pack_event, unpack_event
from specdiff.replay import spec
from specdiff.replay.agreement import agree
from specdiff.replay.cause import cause
from specdiff.replay.columns.engine import ledger
from specdiff.replay.columns.shared import Columns
from specdiff.replay.diff import diff
from specdiff.replay.flat import flat
from specdiff.replay.laws.check import check
from specdiff.replay.laws.law import State
from specdiff.replay.observed import observed
from specdiff.replay.paths.fixes import ALL, rules_of
from specdiff.replay.quantity import Quantity
from test_capture_inject import INJECT
from test_ring import RING_S, STATS, handed_over

Record = tuple[Kind | journal.Type, bytes]
Cell = tuple[str, Quantity, int, int, str, int]  # path, quantity, time, moment, request, part

# The quantities that a seed makes known for requests under way. The others are not known until an extend.
TOLD = {Quantity.KV_COMMITTED_LEN, Quantity.KV_COMMITTED_LEN_SETTLED, Quantity.SEQ_LENS_SUM}
NUM_CUTS = 8


@cache
def noted(version: str, scenario: str = "random", *more: str) -> list[Record]:
    """Return the journal of a random run in which the recorder noted a SEED whenever it could."""
    with TemporaryDirectory() as folder:
        return _noted(Path(folder), "--sglang", version, "--scenario", scenario, *more)


def _noted(folder: Path, *arguments: str) -> list[Record]:
    command = [sys.executable, str(Path(__file__).with_name("seeds_child.py"))]
    command += ["--seed", "5", "--requests", "40", *arguments]
    env = {**os.environ, DIR: str(folder), "PYTHONPATH": str(INJECT)}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
    (path,) = folder.glob("*.journal")
    return [(_type(record.type), record.payload) for record in journal.scan(path).records]


def _type(number: int) -> Kind | journal.Type:
    return Kind(number) if number < journal.Type.RUN else journal.Type(number)


def from_here_on(records: list[Record], at: int, folder: Path, *, seeds: int = 1) -> Recording:
    """Build what would have been recorded if recording had begun at record `at`, with `seeds` seeds."""
    named = (journal.Type.RUN, journal.Type.REQUEST)
    head = [record for record in records[:at] if record[0] in named]
    noted = [place for place in range(at, len(records)) if records[place][0] == Kind.SEED]
    late = set(noted[seeds:])
    tail = [record for place, record in enumerate(records) if place >= at and place not in late]
    if at:
        first = next(unpack_event(kind, data) for kind, data in tail if isinstance(kind, Kind))
        head.append((Kind.GAP, pack_event(Kind.GAP, first.time_ns, first.iteration, (1,))))
    path = folder / "cut.journal"
    path.write_bytes(journal.HEADER + journal.frames([*head, *tail]))
    return build(path)


def ledgers(recording: Recording, *paths: str) -> dict[Cell, int]:
    """Return the captured value of every cell on each path."""
    said: dict[Cell, int] = {}
    names = [*recording.rids, ""]  # index -1, which stands for a whole batch, finds the last
    for one in flat(recording, [spec.parse(path) for path in paths], list(Quantity)):
        times = recording.events.time_ns[one.event]
        cells = [column.tolist() for column in (times, one.moment, one.qid, one.part)]
        for path in one.paths:
            told = zip(*cells, path.values.tolist(), path.captured.tolist(), strict=True)
            for time, moment, qid, part, value, captured in told:
                if captured:
                    said[path.path, one.quantity, time, moment, names[qid], part] = value
    return said


@pytest.mark.live
@pytest.mark.parametrize(
    ("version", "scenario"),
    [
        ("0.5.11", "random"),
        *on_demand(("0.5.23", "grammar-random"), ("0.5.16", "sessions-random")),
        *on_demand(*((version, "random") for version in VERSIONS)),
    ],
)
def test_books_that_begin_at_a_seed_equal_those_of_the_whole_recording(
    version: str, scenario: str, tmp_path: Path
) -> None:
    """Recording begins at random places, also while slots are claimed (0.5.11).

    Compares observed books, the release's own functions, those of other releases, and rules. The prepare right after a seed
    is left out: the seed had to assume values that it could not know. What follows from that prepare is compared.
    """
    records = noted(version, scenario)
    paths: tuple[str, ...] = ("observed", f"sglang=={version}", "fixed")
    if scenario == "random":  # older and newer books can run this one, too
        paths += ("old", "sglang==0.5.10", "sglang==0.5.12", "sglang==0.5.23")
    whole = ledgers(from_here_on(records, 0, tmp_path), *paths)
    more: Counter[tuple[str, Quantity]] = Counter()
    hidden = 0
    for at in random.Random(1).sample(range(len(records) // 20, len(records) // 2), NUM_CUTS):
        cut = from_here_on(records, at, tmp_path)
        books = ledgers(cut, *paths)
        assert _differing(books, whole, cut) == [], at
        observed = {cell[1:]: value for cell, value in books.items() if cell[0] == paths[0]}
        lifted = {cell[1:]: value for cell, value in books.items() if cell[0] == paths[1]}
        assert all(observed[cell] == lifted[cell] for cell in observed.keys() & lifted.keys()), at
        seeds = cut.events.time_ns[cut.event_of(Kind.SEED)].tolist()
        if seeds:  # otherwise no request was under way
            sums = {cell for cell in whole if cell[:2] == (paths[1], Quantity.SEQ_LENS_SUM)}
            assert {cell for cell in sums if cell[2] > seeds[-1]} <= books.keys(), at
        bare = from_here_on(records, at, tmp_path, seeds=0)
        more.update(_told(books))
        more.subtract(_told(ledgers(bare, *paths)))
        hidden += len(bare.results.launch) - len(cut.results.launch)
        assert num_dropped(cut) == 0  # a seed has what the hidden result did
    assert hidden > 0
    assert all(more[path, quantity] > 20 for path in paths[1:] for quantity in TOLD), more


def _differing(books: dict[Cell, int], whole: dict[Cell, int], cut: Recording) -> list[Cell]:
    """Return up to three cells that both have and that differ, except at prepares right after a seed."""
    behind = set(cut.events.time_ns[cut.event_of(Kind.SEED)].tolist())
    both = [cell for cell in books.keys() & whole.keys() if cell[2] not in behind]
    return [cell for cell in both if books[cell] != whole[cell]][:3]


def _told(books: dict[Cell, int]) -> Counter[tuple[str, Quantity]]:
    """Return the number of captured cells by path and quantity."""
    return Counter(cell[:2] for cell in books)


@pytest.mark.live
def test_a_ring_has_books_for_requests_that_began_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, *records = noted("0.5.23", "grammar-random")
    first = journal.frame(*run)
    writer = JournalWriter(tmp_path / "ring", first, 1 << 30, lambda _: STATS, print, ring_s=RING_S)
    handed_over(records, writer, 3 * RING_S)
    writer.close()
    ring, paths = build(tmp_path / "ring"), ("observed", "sglang==0.5.23")
    books = ledgers(ring, *paths)
    whole = ledgers(from_here_on([run, *records], 0, tmp_path), *paths)
    assert ring.event_of(Kind.SEED)[0] < 100 and ring.seed_rows.begins.any()
    assert _differing(books, whole, ring) == []
    assert _told(books)[paths[1], Quantity.SEQ_LENS_SUM] > 50
    hdf5.save(ring, tmp_path / "ring.h5")
    run_specdiff(["info", str(tmp_path / "ring.h5")])
    begun = f"on a running server; {ring.seed_rows.begins.sum()} request"
    assert begun in (said := capsys.readouterr().out) and "under way after a gap" in said


@pytest.mark.live
def test_ranks_recorded_from_different_steps_on_agree(tmp_path: Path) -> None:
    """Two parts of one journal stand for two ranks. A result that a seed hides on one rank is no difference."""
    records = noted("0.5.23", "grammar-random")
    places = random.Random(2).sample(range(len(records) // 10, len(records) // 2), NUM_CUTS)
    begun = [from_here_on(records, at, tmp_path) for at in [0, *sorted(places)]]
    for one, other in pairwise(begun):
        found = agree(one, other)
        assert found.first is None and found.num_events > 200, found


@pytest.mark.live
def test_a_seed_breaks_no_law(tmp_path: Path) -> None:
    """A seed can hide a result between two others of a request. Laws must allow for that."""
    records = noted("0.5.23", "grammar-random")
    whole = _broken(from_here_on(records, 0, tmp_path))
    for at in range(len(records) // 20, len(records) // 2, len(records) // 120):
        assert _broken(from_here_on(records, at, tmp_path)) <= whole, at


def _broken(recording: Recording) -> set[str]:
    columns = Columns(recording)
    found = check(columns, observed(columns))
    return {one.law.name for one in found if one.state is State.BROKEN}


@pytest.mark.live
def test_a_seed_without_new_information_leaves_the_recording_unchanged(tmp_path: Path) -> None:
    records = noted("0.5.23", "grammar-random")
    assert sum(type == Kind.SEED for type, _ in records) > 20
    assert same_content(
        from_here_on(records, 0, tmp_path), from_here_on(records, 0, tmp_path, seeds=0)
    )


@pytest.mark.live
def test_the_cause_of_a_difference_whose_beginning_was_not_captured_says_so(tmp_path: Path) -> None:
    records = noted("0.5.23", "random")
    columns = Columns(from_here_on(records, 20, tmp_path))
    fixed = ledger(columns, rules_of(ALL), "fixed")
    (raw,) = (
        one
        for one in diff(columns.recording, observed(columns), fixed)
        if one.quantity is Quantity.KV_COMMITTED_LEN
    )
    said = {cause(columns, raw, cell) for cell in raw.differs.nonzero().flatten().tolist()}
    assert "it differs already before this prepare" in said
    assert (
        "it differs already before this result, from an event after which its length was not captured"
        in said
    )


@pytest.mark.live
def test_without_overlap_a_seed_hides_no_result(tmp_path: Path) -> None:
    records = noted("0.5.23", "random", "--disable-overlap")
    paths = ("observed", "sglang==0.5.23")
    whole = ledgers(from_here_on(records, 0, tmp_path), *paths)
    at = len(records) // 3
    cut, bare = (from_here_on(records, at, tmp_path, seeds=seeds) for seeds in (1, 0))
    books = ledgers(cut, *paths)
    assert len(cut.results.launch) == len(bare.results.launch) and len(cut.seeds.batch) > 0
    assert _differing(books, whole, cut) == []
    assert _told(books)[paths[1], Quantity.SEQ_LENS_SUM] > 50


@pytest.mark.parametrize("begun", [False, True])
def test_a_seed_is_dropped_if_it_would_hide_a_result_of_known_requests(begun: bool) -> None:
    """Synthetic. A seed for request 1 belongs before the prepare and hides the result since. If the books of request 2
    have begun, that result must stay, so the seed is dropped."""
    other = [_event(Kind.EXTEND, 5, [2])] if begun else []
    gap = (Kind.GAP, pack_event(Kind.GAP, 1, 1, (1,)))
    records = [gap, *other, _event(Kind.PREPARE, 0, [1, 2]), _event(Kind.RESULT, 9, [1, 2])]
    records.append(_event(Kind.SEED, 0, [1]))
    data = journal.HEADER + journal.frames(records)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.journal"
        path.write_bytes(data)
        scan = journal.scan(path)
        made = plan(scan.records, scan.format)
    prepare, result, seed = range(len(records) - 3, len(records))
    told = (made.left_out, {*made.ahead})
    assert told == (({seed}, set()) if begun else ({result, seed}, {prepare}))


def _event(kind: Kind, first: int, qids: list[int]) -> Record:
    """Return a packed event. `first` is its batch, or for a RESULT the launch that it answers."""
    fields = [first, *[0] * (NUM_FIELDS[kind] - 2), len(qids)]
    if kind is Kind.SEED:
        fields[1] = NONE64
    columns = [qids, [1] * len(qids)] + [[0] * len(qids)] * (ROW_WIDTH[kind] - 2)
    return kind, pack_event(kind, 1, 1, fields, columns)
