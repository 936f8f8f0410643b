"""Replay the finish decision: what the lifted function decides after each live result.

It decides from the recorded tokens and stop conditions.
"""

from __future__ import annotations

from ...recorders.schema import NONE32, NONE64, REASONS, Kind, Reason
from ..decisions import decisions
from ..quantity import Quantity
from .missing import CannotRunError
from .replay_state import ReplayState
from .roles import Role
from .standins.request import Decided, Request
from .standins.stops import Outputs, Sampling, Stop, Tokenizer
from .tape import Tape, present, tokens, widths
from .tracks import TrackKey, Tracks

_DECISION = TrackKey(Quantity.FINISH, Kind.RESULT, True)
# If a finish asks for one of these, which recordings do not (always) hold, only that decision is
# not captured.
_NOT_RECORDED = ("req.sampling_params.stop_", "req.output_ids[")
_ABORTED = "recorded abort"


class FinishReplay:
    """Replays each decision by itself: everything that happened before it, aborts included, is taken from the recording."""

    def __init__(self, state: ReplayState, tape: Tape, tracks: Tracks) -> None:
        self._state, self._tape, self._tracks = state, tape, tracks
        self._stops = tape.once(_stops)
        self._tokens, self._widths = tape.once(tokens), tape.once(widths)
        self._decided = tape.once(_decided)
        self._outputs: dict[int, Outputs] = {}
        self._results, self._rows = tape.rows_of[Kind.RESULT], tape.rows[Kind.RESULT]
        self._aborts: list[bool] = (tape.recording.finishes.reason == Reason.ABORT).tolist()
        if not state.has(Role.FINISH):
            tracks.reasons[Quantity.FINISH] = f"{state.program.name} has no known finish function"
        elif any(stop.tokenizer_token_ids is None for stop in self._stops):
            tracks.reasons[Quantity.FINISH] = (
                "format 1 does not hold the vocabulary size and the tokenizer's stop tokens"
            )

    def result(self, ref: int) -> None:
        """Play the decision of every live row of one result."""
        if self._tracks.reasons and Quantity.FINISH in self._tracks.reasons:
            return
        table, rows = self._results, self._rows[ref]
        tokens, width = self._tokens[ref], self._widths[ref]
        for place, row in enumerate(rows):
            finish = self._decided.get(row)
            if finish is None:
                continue
            emitted = table.num_emitted[row]
            count = 1 if emitted == NONE32 else emitted
            if count > width:  # not captured, or the tokens cannot be assigned to requests
                continue
            new = tokens[place * width :][:count]
            request = self._state.requests[table.qid[row]]
            before = request.output_ids, request.grammar
            self._arrange(request, row, new, aborted=self._is_abort(finish))
            self._decide(request, row, len(new))
            request.output_ids, request.grammar = before
            request.finished_reason, request.finished_len = None, None

    def _is_abort(self, finish: int) -> bool:
        return finish >= 0 and self._aborts[finish]

    def _arrange(self, request: Request, row: int, new: list[int], *, aborted: bool) -> None:
        """Set the request to its state at the decision: the new tokens are appended."""
        had = self._results.output_len[row]
        outputs = self._outputs.get(request.qid)
        if outputs is None:
            self._meet(request)
        if outputs is None or len(outputs) != had:  # first seen, or tokens were lost in a gap
            outputs = self._outputs[request.qid] = Outputs(had)
        outputs.extend(new)
        request.output_ids = outputs
        done = self._results.grammar_done[row]
        request.grammar = None if done == NONE32 else Decided(done == 1)
        request.finished_reason, request.finished_len = None, None
        request.to_finish = _ABORTED if aborted else None

    def _meet(self, request: Request) -> None:
        """Set what can stop the request. This does not change between decisions."""
        asked, stop = self._tape.requests, self._stops[request.qid]
        request.sampling_params = Sampling(
            asked.max_new_tokens[request.qid], asked.ignore_eos[request.qid] == 1, stop
        )
        request.eos_token_ids = stop.eos_token_ids
        request.tokenizer = (
            Tokenizer(stop.tokenizer_token_ids) if stop.tokenizer_token_ids else None
        )
        request.vocab_size = present(asked.vocab_size[request.qid])

    def _decide(self, request: Request, row: int, num_new: int) -> None:
        """Call the lifted function and write its decision."""
        try:
            self._state.call(Role.FINISH, request, num_new)
        except CannotRunError as error:
            if not any(what in str(error) for what in _NOT_RECORDED):
                raise
            return
        why = request.finished_reason
        if why is None:
            self._tracks.put_parts(_DECISION, row, 0, NONE64, NONE64)
            return
        name = type(why).__name__
        reason = Reason.ABORT if why is _ABORTED else REASONS.get(name, Reason.OTHER)
        length = NONE64 if request.finished_len is None else int(request.finished_len)
        self._tracks.put_parts(_DECISION, row, 1, int(reason), length)


def _stops(tape: Tape) -> list[Stop]:
    """Return the stop conditions by qid."""
    return [Stop.of(details) for details in tape.recording.details]


def _decided(tape: Tape) -> dict[int, int]:
    """Return result row -> row of `finishes`, or one of the codes in `decisions`."""
    decided = decisions(tape.recording)
    return dict(zip(decided.row.tolist(), decided.finish.tolist(), strict=True))
