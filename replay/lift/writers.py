"""Find code outside the lifted functions that keeps books.

If spec v2 runs it, a replay would silently miss it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from .missing import CannotRunError
from .module import Modules, members
from .roles import EXCERPTS, REQ, REQ_KV, SLOT, Role
from .scan import calls_of, files, mentioning
from .surface import Definition

_BOOKS = frozenset(
    """
    kv_committed_len kv_allocated_len spec_verify_ct spec_num_correct_drafts spec_accepted_drafts spec_accepted_tokens
    spec_correct_drafts_histogram spec_acceptance_histogram
    """.split()  # noqa: SIM905
)
# These either set what the recording provides (a request's start, an extend) or run without
# speculation or in spec v1.
_KNOWN = frozenset(
    """
    Req.__init__ ScheduleBatch.prepare_for_extend alloc_for_extend
    alloc_for_decode alloc_for_decode_default
    NgramVerifyInput._fill_requests NgramVerifyInput._free_cache
    """.split()  # noqa: SIM905
)

# Prepares every decode. Under spec v2 it returns early, and the code after that is for other modes.
_RETURNS_EARLY = "ScheduleBatch.prepare_for_decode"
# Set before each call, from the recording.
_FED = frozenset(
    """
    is_retracted finished_reason finished_len to_finish grammar tokenizer output_ids origin_input_ids kv req_pool_idx
    """.split()  # noqa: SIM905
)

# A session depends on what the tree and the previous turn left, and on events of its own.
_SESSIONS = frozenset(place.partition(":")[0] for place in SLOT)

# These read as absent, because no book depends on them.
_ABSENT = frozenset(
    {
        "return_logprob",
        "stream",
        "is_prefill_only",
        "return_hidden_states",
        "skip_radix_cache_insert",
    }
)

# Harmless values of the sum (the sum itself, or nothing), and functions that only change a copy of
# their own (a draft's extend, spec v1).
_SUM = "seq_lens_sum"
_SUMS = frozenset({"sum(seq_lens)", "int(batch.seq_lens_cpu.sum())", "0", "None"})
_KNOWN_SUMS = frozenset(
    {"EagleDraftInputV2Mixin.prepare_for_extend_to_fill_draft_kvcache", "NgramVerifyInput.verify"}
)


class Writers:
    """Checks for writers.

    `definitions` has every lifted definition by key; `kept` lists attributes that those keep themselves.
    """

    def __init__(
        self,
        source: str,
        modules: Modules,
        roles: dict[str, str],
        definitions: dict[str, Definition],
        kept: Collection[str],
    ) -> None:
        self._source, self._modules, self._roles, self._definitions = (
            source,
            modules,
            roles,
            definitions,
        )
        self._kept = frozenset(kept) - _BOOKS - _FED

    def check(self) -> None:
        """Raise CannotRunError at the first change of a book that a replay would miss.

        The message names its place.
        """
        self._check_fields()
        helpers: set[str] = set()
        state: set[str] = set()
        for key in self._definitions:
            node = self._modules.definition(key)
            if node is None or key in EXCERPTS or not _keeps(node):
                continue
            for item in _attributes(node, ast.Load):
                if item.attr in _ABSENT:
                    raise CannotRunError(
                        f"cannot run: {self._source} {key}, line {item.lineno}, reads {item.attr} and changes a book. specdiff "
                        "reads this attribute as absent, because no book depended on it. Record it, or, if the book does not "
                        "depend on it here either, remove it from replay/lift/writers.py."
                    )
            if key not in self._roles.values() or key == self._roles.get(Role.STATISTICS.value):
                helpers.add(key.rpartition(":")[2].rpartition(".")[2])
            if key.partition(":")[0] not in _SESSIONS:
                state |= {item.attr for item in _attributes(node, ast.Load)} & self._kept
        for path in files(self._modules):
            self._check_file(path, helpers, state)

    def of_sums(self) -> str | None:
        """Say where `seq_lens_sum` of a batch is set to a value that no lifted function computes; None if nowhere.

        Setting it to the sum of the lengths or to nothing is harmless, because the lengths are
        replayed.
        """
        for path in files(self._modules):
            for name, node in mentioning(self._modules, path, (_SUM,)):
                if name in _KNOWN_SUMS or f"{path}:{name}" in self._definitions:
                    continue
                end = _last_return(node) if name == _RETURNS_EARLY else 1 << 30
                for line, value in _sums_set(node, of_self=name.startswith("ScheduleBatch.")):
                    if line < end and value not in _SUMS:
                        return (
                            f"cannot run: {self._source} {path}:{line} {name} sets {_SUM} to {value}, and no lifted function "
                            "reaches this code; docs/lifting.md says what to do"
                        )
        return None

    def _check_fields(self) -> None:
        """Check that books are plain numbers, as in the stand-ins.

        A computed property could have other values.
        """
        for owner in (REQ, *REQ_KV):
            node = self._modules.definition(owner)
            for name in _BOOKS & set(members(node) if isinstance(node, ast.ClassDef) else ()):
                raise CannotRunError(
                    f"cannot run: {self._source} {owner} has {name} as a method or property, but specdiff expects a plain "
                    "number. Read what it computes, and support it in replay/lift/standins/request.py."
                )

    def _check_file(self, path: str, helpers: set[str], state: set[str]) -> None:
        for name, node in mentioning(self._modules, path, _BOOKS | helpers | state):
            if name in _KNOWN:
                continue
            key = f"{path}:{name}"
            if key in self._definitions and key not in EXCERPTS:
                continue
            books = _BOOKS - {"kv_committed_len"} if key in EXCERPTS else _BOOKS
            end = _last_return(node) if name == _RETURNS_EARLY else 1 << 30
            for line, what in (*_stores(node, books | state), *_calls(node, helpers)):
                if line < end:
                    raise CannotRunError(
                        f"cannot run: {self._source} {path}:{line} {name} changes {what}, and no lifted function reaches this "
                        "code, so a replay would miss the change. If spec v2 runs it, add its place to replay/lift/roles.py; if "
                        "not, list its name in replay/lift/writers.py."
                    )


def _attributes(node: ast.AST, context: type[ast.expr_context]) -> Iterator[ast.Attribute]:
    """Yield the attributes that are read or written, depending on `context`."""
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, context):
            yield item


def _stores(node: ast.AST, names: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name wherever one of these attributes is set."""
    for item in _attributes(node, ast.Store):
        if item.attr in names:
            yield item.lineno, item.attr


def _sums_set(node: ast.AST, *, of_self: bool) -> Iterator[tuple[int, str]]:
    """Yield line and value wherever the sum of a batch is set.

    The batch of a forward does not count.
    """
    for item in ast.walk(node):
        if not isinstance(item, (ast.Assign, ast.AugAssign)):
            continue
        for target in item.targets if isinstance(item, ast.Assign) else [item.target]:
            if isinstance(target, ast.Attribute) and target.attr == _SUM:
                owner = ast.unparse(target.value).rpartition(".")[2]
                is_batch = of_self if owner == "self" else owner.endswith("batch")
                if is_batch and owner != "forward_batch":
                    counts = isinstance(item, ast.AugAssign)
                    yield item.lineno, f"{'a value updated by ' * counts}{ast.unparse(item.value)}"


def _keeps(node: ast.AST) -> bool:
    """Whether the definition changes a book: a number that it sets, or a histogram that it may change in place."""
    return any(
        item.attr in _BOOKS
        and (isinstance(item.ctx, ast.Store) or item.attr.endswith("_histogram"))
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute)
    )


def _calls(node: ast.AST, helpers: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield line and description of every call of one of these helpers."""
    for name in helpers:
        for call in calls_of(node, name):
            yield call.lineno, f"a book by {name}()"


def _last_return(node: ast.AST) -> int:
    """Return the line of the last return statement, or 0."""
    return max((item.lineno for item in ast.walk(node) if isinstance(item, ast.Return)), default=0)
