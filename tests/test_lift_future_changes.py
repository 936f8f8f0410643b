"""Changes that a future sglang may make: specdiff executes them exactly or refuses them with their place."""

from __future__ import annotations

import random
import re

import pytest
import torch

from lifting import Changed, against_observed, bundled_recording, compiled, release
from specdiff.replay.lift.missing import CannotRunError, Missing
from specdiff.replay.lift.source import Source
from specdiff.replay.lift.standins.base import Quiet
from specdiff.replay.lift.standins.stops import Outputs
from specdiff.replay.lift.standins.vector import Torch, Vector
from specdiff.replay.quantity import Quantity

_BATCH = "srt/managers/schedule_batch.py"
_PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"
_RESOLVE, _STRIDE = "_resolve_spec_v2_tokens", "_get_speculative_output_stride"
_COMMIT = "req.kv.kv_committed_len += num_accept_tokens"
_COUNTER = "self.spec_verify_ct = 0"

Edit = tuple[str, str, str, str]  # path, function, text in it, replacement


def _commits(new: str) -> Edit:
    return _PROCESSOR, _RESOLVE, _COMMIT, new


def _above(text: str) -> Edit:
    """Insert `text` at the top level of the file that holds the resolve function."""
    head = f"def {_STRIDE}"
    return _PROCESSOR, _STRIDE, head, f"{text}\n\n\n{head}"


def _starts(text: str) -> Edit:
    """Insert `text` into `Req.__init__`."""
    return _BATCH, "__init__", _COUNTER, f"{_COUNTER}\n        {text}"


_PENDING = f"{_COMMIT} + req.pending\n                req.pending = 0"
_CALL = "self._resolve_spec_v2_tokens(result, batch"
_CLAIM = (
    _PROCESSOR,
    _RESOLVE,
    "batch: ScheduleBatch,\n    )",
    "batch: ScheduleBatch, claim: int = 0\n    )",
)
_DECORATED = "@{}\ndef _commit(req, n):\n    req.kv.kv_committed_len += n"
_TWICE = "def _same(function):\n    def inner(*given):\n        return function(*given)\n\n    return inner\n\n\n"

SAME: dict[str, list[Edit]] = {
    "commits computed from the number of tokens": [
        _commits("req.kv.kv_committed_len = req.seqlen - 1 + num_accept_tokens")
    ],
    "commits capped at the number of tokens": [
        _commits(
            "req.kv.kv_committed_len = min(req.kv.kv_committed_len + num_accept_tokens, "
            "len(req.origin_input_ids) + len(req.output_ids) + num_accept_tokens)"
        )
    ],
    "a decorator that adds nothing": [
        _above(_TWICE + _DECORATED.format("_same")),
        _commits("_commit(req, num_accept_tokens)"),
    ],
    "a new attribute that only lifted functions change": [
        _starts("self.pending = 0"),
        _commits(_PENDING),
    ],
    "a new argument that no caller passes": [_CLAIM, _commits(f"{_COMMIT} - claim")],
    "a new argument passed at its default": [
        _CLAIM,
        (_PROCESSOR, "_normalize_decode_outputs", _CALL, f"{_CALL}, 0"),
        _commits(f"{_COMMIT} - claim"),
    ],
}
DIFFERS: dict[str, list[Edit]] = {
    "a decorator that computes": [
        _above(
            _TWICE.replace("function(*given)", "function(given[0], given[1] - 1)")
            + _DECORATED.format("_same")
        ),
        _commits("_commit(req, num_accept_tokens)"),
    ],
}
REFUSED: dict[str, tuple[str, list[Edit]]] = {
    "a caller commits": (
        rf"{_PROCESSOR}:\d+ SchedulerBatchResultProcessor\._normalize_decode_outputs changes kv_committed_len",
        [
            (
                _PROCESSOR,
                "_normalize_decode_outputs",
                "next_token_ids = self._resolve",
                "batch.reqs[0].kv.kv_committed_len += 1\n            next_token_ids = self._resolve",
            )
        ],
    ),
    "the caller of prepare commits": (
        r"ScheduleBatch\.prepare_for_decode changes kv_committed_len",
        [
            (
                _BATCH,
                "prepare_for_decode",
                "spec_prepare_for_decode(self)\n",
                "spec_prepare_for_decode(self)\n            self.reqs[0].kv.kv_committed_len += 1\n",
            )
        ],
    ),
    "a method that a stand-in replaces commits": (
        r"ScheduleBatch\.maybe_evict_swa changes kv_committed_len",
        [
            (
                _BATCH,
                "maybe_evict_swa",
                "def maybe_evict_swa(self):",
                "def maybe_evict_swa(self):\n        self.reqs[0].kv.kv_committed_len += 1",
            )
        ],
    ),
    "a caller commits through a helper": (
        r"_normalize_decode_outputs changes a book by commit_to\(\)",
        [
            _above("def commit_to(req, n):\n    req.kv.kv_committed_len += n"),
            _commits("commit_to(req, num_accept_tokens - 1)"),
            (
                _PROCESSOR,
                "_normalize_decode_outputs",
                "next_token_ids = self._resolve",
                "commit_to(batch.reqs[0], 1)\n            next_token_ids = self._resolve",
            ),
        ],
    ),
    "a caller counts up the histogram": (
        r"_normalize_decode_outputs changes a book by update_spec_correct_drafts_histogram\(\)",
        [
            (
                _PROCESSOR,
                _RESOLVE,
                "req.update_spec_correct_drafts_histogram(num_correct_drafts)",
                "pass",
            ),
            (
                _PROCESSOR,
                "_normalize_decode_outputs",
                "next_token_ids = self._resolve",
                "batch.reqs[0].update_spec_correct_drafts_histogram(1)\n            next_token_ids = self._resolve",
            ),
        ],
    ),
    "unlifted code changes an attribute that the books use": (
        r"_normalize_decode_outputs changes pending",
        [
            _starts("self.pending = 0"),
            (
                _PROCESSOR,
                "_normalize_decode_outputs",
                "next_token_ids = self._resolve",
                "batch.reqs[0].pending = 1\n            next_token_ids = self._resolve",
            ),
            _commits(_PENDING),
        ],
    ),
    "a caller passes a new argument": (
        r"_normalize_decode_outputs passes claim=1 to _resolve_spec_v2_tokens",
        [
            _CLAIM,
            (_PROCESSOR, "_normalize_decode_outputs", _CALL, f"{_CALL}, claim=1"),
            _commits(f"{_COMMIT} - claim"),
        ],
    ),
    "an attribute with a conditional initial value": (
        r"resolve reads req\.pending",
        [
            _starts("self.pending = 2 if origin_input_ids else 0\n        self.pending = 0"),
            _commits(_PENDING),
        ],
    ),
    "an attribute whose initial value is changed in place": (
        r"resolve reads req\.pending",
        [_starts("self.pending = 5\n        self.pending -= 3"), _commits(_PENDING)],
    ),
    "a constant bound twice": (
        r"resolve uses the global _BONUS, bound more than once in .*processor\.py",
        [
            _above("_BONUS = 1\nif torch.cuda.is_available():\n    _BONUS = 0"),
            _commits(f"{_COMMIT} + _BONUS"),
        ],
    ),
    "a function bound twice": (
        r"resolve calls the global _bonus, bound more than once",
        [
            _above("def _bonus():\n    return 0\n\n\n_bonus = int"),
            _commits(f"{_COMMIT} + _bonus()"),
        ],
    ),
    "a global that functions share": (
        r"resolve uses the global _EXTRA",
        [_above("_EXTRA = {}"), _commits(f"{_COMMIT} + _EXTRA.get(req.rid, 0)")],
    ),
    "a computed global that is compared": (
        r"resolve uses the global _LIMIT",
        [_above("_LIMIT = int('3')"), _commits(f"{_COMMIT} + (num_accept_tokens == _LIMIT)")],
    ),
    "a constant of a class": (
        r"resolve reads req\.BONUS",
        [_commits(f"{_COMMIT} + getattr(type(req), 'BONUS', 0)")],
    ),
    "the sum of a batch at a moment when it is not known": (
        r"resolve reads batch\.seq_lens_sum",
        [_commits(f"{_COMMIT} + (batch.seq_lens_sum == 0)")],
    ),
    "the number of tokens at a prepare": (
        r"prepare reads req\.output_ids at this moment",
        [
            (
                "srt/speculative/eagle_utils.py",
                "eagle_prepare_for_decode",
                "r.decode_batch_idx += 1",
                "r.kv.kv_committed_len = max(r.kv.kv_committed_len, len(r.output_ids))",
            )
        ],
    ),
    "an attribute that a stand-in reports as absent": (
        r"_resolve_spec_v2_tokens, line \d+, reads return_logprob and changes a book",
        [_commits(f"{_COMMIT} - (1 if req.return_logprob else 0)")],
    ),
    "the kind of a finish reason": (
        r"resolve reads the kind of req\.finished_reason",
        [
            (
                _PROCESSOR,
                _RESOLVE,
                "                pass\n",
                "                req.kv.kv_committed_len -= isinstance(req.finished_reason, int)\n",
            )
        ],
    ),
    "a value that is otherwise used only in a log line": (
        r"experts depends on req\.cached_tokens",
        [
            (
                _PROCESSOR,
                "_maybe_collect_routed_experts",
                "start_len = req.routed_experts_start_len",
                "start_len = max(req.routed_experts_start_len, req.cached_tokens)",
            )
        ],
    ),
    "a decorator that cannot be run": (
        r"resolve calls the decorator @get_settled\(\) of _commit",
        [_above(_DECORATED.format("get_settled()")), _commits("_commit(req, num_accept_tokens)")],
    ),
    "a book that became a property": (
        r"ReqKvInfo has kv_committed_len as a method or property",
        [
            (
                _BATCH,
                "swa_dead_lo",
                "def swa_dead_lo",
                "@property\n    def kv_committed_len(self):\n        return self.raw - 1\n\n    def swa_dead_lo",
            )
        ],
    ),
}


def _shows(edits: list[Edit]) -> set[str]:
    """Return the quantities in which 0.5.23 with these edits differs from what the 0.5.23 server computed."""
    with release("0.5.23") as source:
        changed: Source = source
        for edit in edits:
            changed = Changed(changed, *edit)
        made = compiled(changed)
    found = against_observed(bundled_recording("0.5.23-random"), made)
    return {quantity.value for quantity, difference in found.items() if difference.differs.any()}


@pytest.mark.parametrize("what", SAME)
def test_rewritten_code_with_the_same_books_equals_the_server(what: str) -> None:
    assert _shows(SAME[what]) == set()


@pytest.mark.parametrize("what", DIFFERS)
def test_a_decorator_that_changes_the_books_is_executed(what: str) -> None:
    assert _shows(DIFFERS[what]) == {
        "kv_committed_len",
        "kv_committed_len_settled",
        "kv_allocated_len",
        "released_len",
    }


@pytest.mark.parametrize("what", REFUSED)
def test_code_that_cannot_be_lifted_safely_is_refused_with_its_place(what: str) -> None:
    says, edits = REFUSED[what]
    with pytest.raises(CannotRunError, match=says):
        _shows(edits)


def test_if_unlifted_code_sets_the_sum_only_the_sum_is_not_captured() -> None:
    """Here `Scheduler.run_batch` sets it, and no lifted function refreshes it."""
    exact = "batch.seq_lens_sum = int(batch.seq_lens_cpu.sum())"
    with release("0.5.23") as source:
        made = compiled(
            Changed(source, "srt/managers/scheduler.py", "run_batch", exact, f"{exact} - 1")
        )
        assert compiled(source).surface.no_sums is None
    assert made.surface.no_sums is not None
    assert re.search(
        r"scheduler.py:\d+ Scheduler.run_batch sets seq_lens_sum to .* - 1", made.surface.no_sums
    )
    found = against_observed(bundled_recording("0.5.23-random"), made)
    compared = {one for one, difference in found.items() if difference.num_compared}
    assert Quantity.SEQ_LENS_SUM not in compared and Quantity.KV_COMMITTED_LEN in compared
    assert not any(difference.differs.any() for difference in found.values())


def test_the_stand_in_of_a_tensor_computes_what_torch_computes() -> None:
    chance = random.Random(1)
    for _ in range(50):
        size = chance.randint(1, 6)
        one, two = ([chance.randint(-9, 9) for _ in range(size)] for _ in range(2))
        mine, other, real, its_other = (
            Vector(one),
            Vector(two),
            torch.tensor(one),
            torch.tensor(two),
        )
        picked = [chance.randrange(-size, size) for _ in range(3)]
        start, stop = sorted(chance.choices(range(size + 1), k=2))
        for stand_in, true in (
            (mine + other, real + its_other),
            (mine + 3, real + 3),
            (mine[picked], real[picked]),
            (mine[Vector(picked)], real[torch.tensor(picked)]),
            (mine[start:stop], real[start:stop]),
            (Torch().cat([mine, other]), torch.cat([real, its_other])),
        ):
            assert stand_in.tolist() == true.tolist()
            assert (len(stand_in), stand_in.shape) == (len(true), tuple(true.shape))
        assert (mine.sum().item(), mine.max().item()) == (real.sum().item(), real.max().item())
        assert (mine[picked[0]].item(), mine.numel()) == (real[picked[0]].item(), real.numel())
        copy, own = mine.clone(), real.clone()
        for each, values in ((copy, other), (own, its_other)):
            each[picked[0]] = 7
            each[start:stop] = values[start:stop]
        assert copy.tolist() == own.tolist() and mine.tolist() == one
        copy.copy_(mine)
        assert copy.tolist() == one
    # Nothing may be computed from a tensor that is not recorded.
    assert isinstance(Torch().cat([mine, Quiet("draft tokens")]), Quiet)


@pytest.mark.parametrize("base", [0, 3])
def test_the_stand_in_of_output_ids_is_a_list_of_which_the_beginning_may_be_unknown(
    base: int,
) -> None:
    real, mine = [*range(10, 17)], Outputs(base)
    mine.extend(real[base:])
    assert len(mine) == len(real)
    for at in range(-len(real), len(real)):
        if at % len(real) >= base:
            real[at] = mine[at] = at
            assert mine[at] == real[at]
            assert mine[at:] == real[at:]
        else:
            for key in (at, slice(at, None)):
                with pytest.raises(Missing):
                    mine[key]
