"""Who else keeps the books: code that spec v2 runs and no role reaches would leave a replay silently short of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from .missing import CannotRunError
from .module import Module, Modules, members
from .roles import EXCERPTS, REQ, REQ_KV, SLOT, Role
from .surface import Definition

_BOOKS = frozenset(
    """
    kv_committed_len kv_allocated_len spec_verify_ct spec_num_correct_drafts spec_accepted_drafts spec_accepted_tokens
    spec_correct_drafts_histogram spec_acceptance_histogram
    """.split()  # noqa: SIM905
)
# Read besides the files that were lifted from: who calls the lifted functions.
_CALLERS = ("srt/managers/scheduler.py", "srt/speculative/spec_utils.py")
# A request's start and an extend, which are fed; a decode without speculation; spec v1.
_KNOWN = frozenset(
    """
    Req.__init__ ScheduleBatch.prepare_for_extend alloc_for_extend
    alloc_for_decode alloc_for_decode_default
    NgramVerifyInput._fill_requests NgramVerifyInput._free_cache
    """.split()  # noqa: SIM905
)

# It prepares every decode: under spec v2 it returns early, and what stands behind is of the others.
_RETURNS_EARLY = "ScheduleBatch.prepare_for_decode"
# Set before each call, as recorded.
_FED = frozenset(
    """
    is_retracted finished_reason finished_len to_finish grammar tokenizer output_ids origin_input_ids kv req_pool_idx
    """.split()  # noqa: SIM905
)

# A session goes by what the tree and the turn before left, and by events of its own.
_SESSIONS = frozenset(place.partition(":")[0] for place in SLOT)

# Read as absent, as no book depends on them.
_ABSENT = frozenset(
    {
        "return_logprob",
        "stream",
        "is_prefill_only",
        "return_hidden_states",
        "skip_radix_cache_insert",
    }
)

# How many arguments the engine passes, and which ones it knows by name.
_PASSED = {
    Role.RESOLVE: 3,
    Role.PREPARE: 2,
    Role.PREPARE_DFLASH: 2,
    Role.PREPARE_NGRAM: 2,
    Role.EXPERTS: 2,
    Role.INDEXER: 2,
    Role.SEQ_LENS: 2,
    Role.FILTER: 1,
    Role.MERGE: 2,
    Role.RETRACT: 1,
    Role.MIX: 2,
    Role.TAIL_LENS: 2,
    Role.FINISH: 2,
    Role.COMMIT_LENGTH: 1,
    Role.RELEASE: 2,
}
_NAMED = frozenset(
    """
    checkpoint is_insert stream_ordered keep_indices reqs_to_exclude chunked_req_to_exclude v1_spec_info_filtered
    """.split()  # noqa: SIM905
)


class Writers:
    """`made`: every definition that was lifted, by key; `kept`: attributes that they keep themselves."""

    def __init__(
        self,
        source: str,
        modules: Modules,
        roles: dict[str, str],
        made: dict[str, Definition],
        kept: Collection[str],
    ) -> None:
        self._source, self._modules, self._roles, self._made = source, modules, roles, made
        self._kept = frozenset(kept) - _BOOKS - _FED

    def check(self) -> None:
        """Raises CannotRunError, naming the place, at the first that the lifted functions would lack."""
        self._check_fields()
        helpers: set[str] = set()
        state: set[str] = set()
        for key in self._made:
            node = self._modules.definition(key)
            if node is None or key in EXCERPTS or not _keeps(node):
                continue
            for item in _attributes(node, ast.Load):
                if item.attr in _ABSENT:
                    raise CannotRunError(
                        f"cannot run: {self._source} {key}, line {item.lineno}, reads {item.attr} and changes a book; specdiff "
                        "reads it as absent, as no book depended on it. Record it, or where this does not bear on "
                        "the book, take it out of replay/lift/writers.py."
                    )
            if key not in self._roles.values() or key == self._roles.get(Role.STATISTICS.value):
                helpers.add(key.rpartition(":")[2].rpartition(".")[2])
            if key.partition(":")[0] not in _SESSIONS:
                state |= {item.attr for item in _attributes(node, ast.Load)} & self._kept
        for path in sorted({*self._modules.read, *_CALLERS}):
            self._check_file(path, helpers, state)
        for role, passed in _PASSED.items():
            if place := self._roles.get(role.value):
                self._check_calls(place, passed)

    def _check_fields(self) -> None:
        """The stand-ins hold a book as a number: one that is computed when it is read or set would be another."""
        for owner in (REQ, *REQ_KV):
            node = self._modules.definition(owner)
            for name in _BOOKS & set(members(node) if isinstance(node, ast.ClassDef) else ()):
                raise CannotRunError(
                    f"cannot run: {self._source} {owner} has {name} as a method or property, and specdiff knows it as a "
                    "plain number. Read what it computes, and teach replay/lift/request.py."
                )

    def _check_file(self, path: str, helpers: set[str], state: set[str]) -> None:
        for name, node in self._mentioning(path, _BOOKS | helpers | state):
            if name in _KNOWN:
                continue
            key = f"{path}:{name}"
            if key in self._made and key not in EXCERPTS:
                continue
            books = _BOOKS - {"kv_committed_len"} if key in EXCERPTS else _BOOKS
            end = _last_return(node) if name == _RETURNS_EARLY else 1 << 30
            for line, what in (*_stores(node, books | state), *_calls(node, helpers)):
                if line < end:
                    raise CannotRunError(
                        f"cannot run: {self._source} {path}:{line} {name} changes {what}, and "
                        "nothing that is lifted leads there: a replay would lack it. Where spec v2 runs it, teach "
                        "replay/lift/roles.py its place; where it does not, name it in replay/lift/writers.py."
                    )

    def _mentioning(self, path: str, words: Collection[str]) -> Iterator[tuple[str, ast.stmt]]:
        """Functions and methods of a file in whose lines any of these words stands."""
        text = self._modules.text(path) or ""
        pattern = re.compile(rf"\b(?:{'|'.join(sorted(words))})\b")
        lines = [n for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
        module = self._modules.at(path) if lines else None
        for name, node in _functions(module) if module else ():
            if any(node.lineno <= line <= (node.end_lineno or 0) for line in lines):
                yield name, node

    def _check_calls(self, key: str, passed: int) -> None:
        """A parameter that is new has a default; a caller that passes something else does more than is played."""
        node = self._modules.definition(key)
        if not isinstance(node, ast.FunctionDef):
            return
        name, is_method = node.name, "." in key.partition(":")[2]
        known = passed if is_method or passed != 2 or key.endswith(":release_kv_cache") else 1
        defaults = _defaults_of(node)
        extra = {
            argument.arg: place
            for place, argument in enumerate(node.args.args)
            if place >= known and argument.arg not in _NAMED and argument.arg in defaults
        } | {
            argument.arg: 1 << 30
            for argument in node.args.kwonlyargs
            if argument.arg not in _NAMED and argument.arg in defaults
        }
        if not extra:
            return
        for path in sorted({*self._modules.read, *_CALLERS}):
            for where, function in self._mentioning(path, {name}):
                for call in _calls_of(function, name):
                    given = {word.arg: word.value for word in call.keywords if word.arg}
                    values = dict(zip(range(is_method, 99), call.args, strict=False))
                    for argument, place in extra.items():
                        value = given.get(argument, values.get(place))
                        if value is not None and ast.dump(value) != ast.dump(defaults[argument]):
                            raise CannotRunError(
                                f"cannot run: {self._source} {path}:{call.lineno} {where} passes {argument}="
                                f"{ast.unparse(value)} to {name}, and a replay would leave it at its default, "
                                f"{ast.unparse(defaults[argument])}. Teach replay/lift/ to pass it, or name it in "
                                "replay/lift/writers.py where no book depends on it."
                            )


def _functions(module: Module) -> Iterator[tuple[str, ast.stmt]]:
    for name, node in module.definitions.items():
        if isinstance(node, ast.ClassDef):
            for member, function in members(node).items():
                yield f"{name}.{member}", function
        else:
            yield name, node


def _attributes(node: ast.AST, context: type[ast.expr_context]) -> Iterator[ast.Attribute]:
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, context):
            yield item


def _stores(node: ast.AST, names: Collection[str]) -> Iterator[tuple[int, str]]:
    for item in _attributes(node, ast.Store):
        if item.attr in names:
            yield item.lineno, item.attr


def _keeps(node: ast.AST) -> bool:
    """A number, or a histogram that is extended and counted up in place."""
    return any(
        item.attr in _BOOKS
        and (isinstance(item.ctx, ast.Store) or item.attr.endswith("_histogram"))
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute)
    )


def _calls(node: ast.AST, helpers: Collection[str]) -> Iterator[tuple[int, str]]:
    for name in helpers:
        for call in _calls_of(node, name):
            yield call.lineno, f"a book by {name}()"


def _calls_of(node: ast.AST, name: str) -> Iterator[ast.Call]:
    for item in ast.walk(node):
        if isinstance(item, ast.Call):
            called = item.func
            if name == (
                called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            ):
                yield item


def _last_return(node: ast.AST) -> int:
    return max((item.lineno for item in ast.walk(node) if isinstance(item, ast.Return)), default=0)


def _defaults_of(node: ast.FunctionDef) -> dict[str, ast.expr]:
    arguments = node.args
    last = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    found = {name.arg: value for name, value in zip(last, arguments.defaults, strict=True)}
    for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if value is not None:
            found[name.arg] = value
    return found
