"""Remove what identifies the clients and the machine of a recording.

Texts get pseudonyms, contents get filler values. Nothing that the books depend on changes. Token
ids matter for one decision only: whether a request ends. That depends on which ids can stop it,
and on whether an id is in the vocabulary. So only stop ids keep distinct numbers. All other ids
become one filler: if each id were replaced by another, the text could still be decoded, because
the most frequent id is the most frequent word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .recording import Recording
from .run import JsonScalar, Run, Stats
from .schema import NONE64

if TYPE_CHECKING:
    from .schema import I32

_STOPS = ("token_ids", "eos_token_ids", "tokenizer_token_ids")
_TRACE = re.compile(
    r"""(?<![\w.])(?:[A-Za-z][\w+.-]*://|~?/|[A-Za-z]:\\)\S+  # a URL, an absolute path
    | \S+@\S+\.\w+ | \b\d{1,3}(?:\.\d{1,3}){3}\b  # an address""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[\w+-]*")  # a choice such as `torch_native`; not a path, host or sentence
_NAMES_SOMETHING = re.compile(r"path|dir|file|host|addr|url|model|name|key|token")


def pseudonymous(recording: Recording) -> Recording:
    """Return the recording with pseudonyms and fillers.

    The books of every path stay the same. Applying it twice gives the same result as once.
    """
    rids, tokens = _Names("request"), _token_map(recording)
    return replace(
        _of_the_run(recording),
        rids=tuple(map(rids, recording.rids)),
        details=tuple(_all_details(recording, rids, tokens)),
        tokens=_replaced(recording.tokens, tokens),
        experts=np.zeros_like(recording.experts),
        indexer=np.zeros_like(recording.indexer),
    )


def _of_the_run(recording: Recording) -> Recording:
    """Return the recording with pseudonyms in the run attributes only; requests are unchanged."""
    texts = _Names("redacted")
    return replace(
        recording,
        run=_run(recording.run, texts),
        stats=recording.stats and _stats(recording.stats),
        damage=recording.damage and _without_traces(recording.damage, texts),
        derived=tuple(
            replace(step, description=_without_traces(step.description, texts))
            for step in recording.derived
        ),
    )


def contents(recording: Recording) -> tuple[str, ...]:
    """Name what `pseudonymous` would replace in this recording; empty if it has been replaced."""
    without = _of_the_run(recording)
    run = replace(without.run, command=recording.run.command)
    tokens = _token_map(recording)
    # --no-tokens leaves only those that can end their request
    output = (
        "output tokens"
        if recording.tokens_replaced is None
        else "the output tokens that can end a request"
    )
    parts = {
        output: not np.array_equal(recording.tokens, _replaced(recording.tokens, tokens)),
        "ids and stop tokens of requests": _has_request_texts(recording, tokens),
        "routed rows": bool(recording.experts.any() or recording.indexer.any()),
        "the command line": recording.run.command != without.run.command,
        "paths or hosts": (recording.run, recording.damage, recording.derived)
        != (run, without.damage, without.derived),
        "an exception's message": recording.stats != without.stats,
    }
    return tuple(name for name, held in parts.items() if held)


def _has_request_texts(recording: Recording, tokens: dict[int, int]) -> bool:
    """Whether ids or stop tokens of requests are still in the recording.

    `any` usually stops at the first request, of which there may be a million.
    """
    rids = _Names("request")
    for rid in recording.rids:
        rids(rid)
    rewritten = _all_details(recording, rids, tokens)
    return any(one != other for one, other in zip(recording.details, rewritten, strict=True))


@dataclass(slots=True)
class _Names:
    """Pseudonyms of one sort, numbered in order of first use. Equal texts get equal pseudonyms."""

    sort: str
    known: dict[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        return self.known.setdefault(text, f"{self.sort}-{len(self.known)}")


def _stop_ids(details: dict[str, Any]) -> Iterator[int]:
    stop = details.get("stop", {})
    for name in _STOPS:
        yield from stop.get(name) or ()


def _token_map(recording: Recording) -> dict[int, int]:
    """Map every token id in the recording to its replacement.

    Negative ids and the vocabulary size itself stay as they are; releases disagree on which side
    of the boundary that size is. Every other id stays in its range, below or above the vocabulary
    size. In each range, the lowest number replaces all ordinary ids, and the next numbers replace
    the ids that can stop a request.
    """
    stops = {token for text in recording.details for token in _stop_ids(json.loads(text))}
    sizes = recording.requests.vocab_size
    vocabularies = sorted({int(size) for size in sizes[sizes != NONE64] if size >= 0})
    seen = {*map(int, np.unique(recording.tokens)), *stops}
    mapped = {token: token for token in seen if token < 0 or token in vocabularies}
    starts = (0, *(size + 1 for size in vocabularies))
    for low, high in zip(starts, (*vocabularies, None), strict=True):
        inside = {token for token in seen if low <= token and (high is None or token < high)}
        can_stop = sorted(inside.intersection(stops))
        mapped |= dict.fromkeys(inside, low)
        # If every id of a range is a stop token, there is no ordinary id and no number to spare.
        first = low + 1 if high is None else min(low + 1, high - len(can_stop))
        mapped |= {token: first + number for number, token in enumerate(can_stop)}
    return mapped


def _replaced(tokens: I32, mapped: dict[int, int]) -> I32:
    found, where = np.unique(tokens, return_inverse=True)
    stands = np.array([mapped[int(token)] for token in found], dtype=tokens.dtype)
    return stands[where] if len(found) else tokens


def _all_details(recording: Recording, rids: _Names, tokens: dict[int, int]) -> Iterator[str]:
    sessions = _Names("session")
    return (_details(json.loads(text), rids, sessions, tokens) for text in recording.details)


def _details(raw: dict[str, Any], rids: _Names, sessions: _Names, tokens: dict[int, int]) -> str:
    """Return the details of a request without identifying texts.

    Numbers and flags are kept, ids get pseudonyms, and every other text is dropped.
    """
    kept: dict[str, Any] = {
        name: value for name, value in raw.items() if value is None or isinstance(value, int)
    }
    if "rid" in raw:
        kept["rid"] = rids(str(raw["rid"]))
    if raw.get("session_id") is not None:
        kept["session_id"] = sessions(str(raw["session_id"]))
    if isinstance(stop := raw.get("stop"), dict):
        counts = {name: value for name, value in stop.items() if isinstance(value, int)}
        ids = {name: _replaced_ids(stop[name], tokens) for name in _STOPS if name in stop}
        kept["stop"] = counts | ids
    return json.dumps(kept, sort_keys=True)


def _replaced_ids(ids: Iterable[int] | None, tokens: dict[int, int]) -> list[int] | None:
    return None if ids is None else sorted({tokens[token] for token in ids})


def _run(run: Run, texts: _Names) -> Run:
    """Return the run attributes without the command line and with pseudonyms in their texts.

    Dates stay, as does what the books depend on: versions, sizes and switches.
    """
    clean = {
        name: _without_traces(value, texts)
        for name in run.__slots__
        if isinstance(value := getattr(run, name), str)
    }
    sites = tuple(replace(site, target=_without_traces(site.target, texts)) for site in run.sites)
    args = {name: _argument(name, value, texts) for name, value in run.server_args.items()}
    versions = tuple(str(_argument("", name, texts)) for name in run.weight_versions)
    changes = {"sites": sites, "server_args": args, "weight_versions": versions, **clean}
    return replace(run, command=(), **changes)  # type: ignore[arg-type]


def _argument(name: str, value: JsonScalar, texts: _Names) -> JsonScalar:
    if not isinstance(value, str) or value.startswith("redacted-"):
        return value
    telling = _NAMES_SOMETHING.search(name) or not _PLAIN.fullmatch(value)
    return texts(value) if telling else value


def _without_traces(text: str, texts: _Names) -> str:
    return _TRACE.sub(lambda found: texts(found[0]), text)


def _stats(stats: Stats) -> Stats:
    """Remove the message of the first exception, which may contain anything; keep its type."""
    if stats.first_exception is None:
        return stats
    kind = stats.first_exception.partition(":")[0]
    return replace(stats, first_exception=f"{kind if kind.isidentifier() else 'it'}: redacted")
