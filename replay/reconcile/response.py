"""Read one response of sglang's /generate or OpenAI endpoints into facts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...recorders.errors import RecordingError
from ...recorders.schema import Reason, reason_from_json
from .facts import REASON_WORDS, Fact, Ints, Side, format_spans

# The names of each number in `meta_info`, newest first (sglang's TokenizerManager, by era).
_NUMBERS = {
    Fact.PROMPT_TOKENS: ("prompt_tokens",),
    Fact.COMPLETION_TOKENS: ("completion_tokens",),
    Fact.CACHED_TOKENS: ("cached_tokens",),
    Fact.REASONING_TOKENS: ("reasoning_tokens",),
    Fact.SPEC_VERIFY_CT: ("spec_verify_ct",),
    Fact.SPEC_ACCEPTED_DRAFTS: (
        "spec_num_correct_drafts",  # from 0.5.12 on
        "spec_accepted_drafts",  # 0.5.11 to 0.5.20
        "spec_accept_token_num",  # up to 0.5.10.post1
    ),
    Fact.RETRACTIONS: ("num_retractions", "total_retractions"),  # the latter up to 0.5.11
}
_HISTOGRAMS = ("spec_correct_drafts_histogram", "spec_accept_histogram")  # from 0.5.12; to 0.5.20
_LISTS = {Fact.LOGPROBS: "output_token_logprobs", Fact.HIDDEN_STATES: "hidden_states"}
ROWS = {Fact.EXPERTS_ROWS: "routed_experts", Fact.INDEXER_ROWS: "indexer_topk"}

ABSENT = "not in the response"


@dataclass(frozen=True, slots=True)
class Response:
    """One response. `rid` is None if it names no request.

    `says` holds its facts; rows are flat int32 values until their width is known. `finished` is False
    for an event of a stream before the last one.
    """

    line: int
    rid: str | None
    finished: bool
    says: Side
    output_ids: Ints | None = None
    all_logprobs: int | None = None  # how many it reports for this event and those before

    def with_ids(self, ids: Ints) -> Response:
        """Return a copy with these output ids: those of a stream, joined from its parts."""
        says = Side(dict(self.says.values), dict(self.says.why_not))
        _put_ids(says, ids)
        return replace(self, says=says, output_ids=ids)

    def with_logprobs(self, count: int) -> Response:
        """Return a copy with this number of log probabilities: the sum over all parts of a stream."""
        return replace(
            self, says=Side({**self.says.values, Fact.LOGPROBS: count}, self.says.why_not)
        )


class Reader:
    """Reads the JSON objects of one line. `where` (the file) and `line` are for messages."""

    def __init__(self, where: str, line: int) -> None:
        self._where, self._line = where, line

    def read(self, raw: Any) -> Response:
        """Read one object.

        Raises RecordingError that names the field, what was found and what was expected.
        """
        if not isinstance(raw, Mapping):
            raise self._broken("", raw, "an object, or a list of objects")
        if isinstance(raw.get("meta_info"), Mapping):
            return self._generate(raw, raw["meta_info"])
        if isinstance(raw.get("choices"), list) and raw["choices"]:
            from .openai import as_generate  # loaded only if a response needs it

            return self._openai(*as_generate(raw))
        return Response(self._line, None, True, Side())

    def _openai(self, raw: Mapping[str, Any], why_not: Mapping[Fact, str]) -> Response:
        read = self._generate(raw, raw["meta_info"])
        for fact, why in why_not.items():
            read.says.values.pop(fact, None)
            read.says.why_not[fact] = why
        return read

    def _generate(self, raw: Mapping[str, Any], meta: Mapping[str, Any]) -> Response:
        says, reason = Side(), meta.get("finish_reason")
        self._expect("finish_reason", reason, (Mapping, type(None)), "an object or null")
        told = None if reason is None else reason_from_json(reason)
        says.put(Fact.FINISH_REASON, REASON_WORDS.get(told or Reason.OTHER), "of another sort")
        for fact, names in _NUMBERS.items():
            says.put(fact, self._number(meta, names), ABSENT)
        self._put_histogram(says, meta)
        for fact, name in _LISTS.items():
            values = meta.get(name)
            self._expect(name, values, (list, type(None)), "a list")
            says.put(fact, None if values is None else len(values), ABSENT)
        says.put(Fact.WEIGHT_VERSIONS, self._spans(meta.get("weight_versions")), ABSENT)
        for fact, name in ROWS.items():
            says.put(fact, self._decoded(name, meta.get(name)), ABSENT)
        ids = self._ints("output_ids", raw.get("output_ids"))
        _put_ids(says, ids)
        rid = meta.get("id")
        self._expect("id", rid, (str, type(None)), "a string")
        all_logprobs = self._number(meta, ("output_token_logprobs_length",))
        return Response(self._line, rid, reason is not None, says, ids, all_logprobs)

    def _put_histogram(self, says: Side, meta: Mapping[str, Any]) -> None:
        name = next((name for name in _HISTOGRAMS if meta.get(name)), None)
        steps = None if name is None else self._ints(name, meta[name])
        says.put(Fact.HISTOGRAM_STEPS, None if steps is None else int(steps.sum()), ABSENT)
        drafts = None if steps is None else int((np.arange(len(steps)) * steps).sum())
        says.put(Fact.HISTOGRAM_DRAFTS, drafts, ABSENT)

    def _spans(self, spans: Any) -> str | None:
        name = "weight_versions"
        wanted = "a list of objects with a version, and integers start and end"
        self._expect(name, spans, (list, type(None)), wanted)
        if not spans:
            return None
        told = []
        for span in spans:
            if not isinstance(span, Mapping):
                raise self._broken(name, spans, wanted)
            one: Any = tuple(span.get(part) for part in ("version", "start", "end"))
            if [type(value) for value in one] != [str, int, int]:
                raise self._broken(name, spans, wanted)
            told.append(one)
        return format_spans(told)

    def _number(self, meta: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
        name = next((name for name in names if meta.get(name) is not None), None)
        if name is None:
            return None
        self._expect(name, meta[name], (int,), "an integer")
        return int(meta[name])

    def _ints(self, name: str, values: Any) -> Ints | None:
        if values is None:
            return None
        if not isinstance(values, list) or any(type(value) is not int for value in values):
            raise self._broken(name, values, "a list of integers")
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError as error:
            raise self._broken(name, values, "a list of integers of 64 bits") from error

    def _decoded(self, name: str, text: Any) -> Ints | None:
        """Decode base64 of int32 values, which is how the detokenizer encodes rows."""
        if text is None:
            return None
        self._expect(name, text, (str,), "base64 of int32 values")
        try:
            raw = base64.b64decode(text, validate=True)
            return np.frombuffer(raw, dtype="<i4").astype(np.int64)
        except (binascii.Error, ValueError) as error:
            raise self._broken(name, text, f"base64 of int32 values ({error})") from error

    def _expect(self, name: str, value: Any, kinds: tuple[type, ...], words: str) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self._broken(name, value, words)

    def _broken(self, name: str, found: Any, expected: str) -> RecordingError:
        shown = repr(found)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        at = f" {name}:" if name else ""
        return RecordingError(
            f"{self._where}, line {self._line}:{at} found {shown}, expected {expected}. "
            "The file must have one response per line, as the server sent it."
        )


def _put_ids(says: Side, ids: Ints | None) -> None:
    says.put(Fact.OUTPUT_IDS, None if ids is None else len(ids), ABSENT)
    says.put(Fact.TOKEN_IDS, ids, ABSENT)
