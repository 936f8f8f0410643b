"""Cut the few statements that keep a book out of a long function, if sglang has no separate function for them.

A tail's token is committed in the middle of `process_batch_result_prefill`:

    for i, (req, ...) in enumerate(...):
        if (req.finished() and ...) or req.is_retracted:
            continue
        if req.inflight_middle_chunks <= 0:
            ... (the token is appended, the finish is decided)
            if not req.finished() and batch.decoding_reqs and req in batch.decoding_reqs and ...:
                req.kv.kv_committed_len += 1

The excerpt is that last `if`, inside its enclosing conditions and after the guards that leave the
loop before it. `decide()` replaces the statements in between and sets whether the request is
finished.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from .allowed_names import ALLOWED_BUILTINS
from .ast_reading import free_names
from .missing import CannotRunError

_BOOK = "kv_committed_len"
_ARGUMENTS = ("self", "batch", "req", "decide")
_LEAVES = (ast.Continue, ast.Break, ast.Return)


class _StrangeError(Exception):
    """An unknown way to keep the book. The message is the end of a sentence."""


def commit_of_tails(function: ast.stmt | None, source: str) -> ast.stmt | None:
    """Return the excerpt as a function of (self, batch, req, decide); None if this function sets no committed length.

    Raises CannotRunError, naming the source and the line, if it sets one in an unknown way.
    """
    if not isinstance(function, ast.FunctionDef):
        return None
    changes = list(_changes(function, ()))
    if not changes:
        return None
    try:
        if len(changes) > 1:
            raise _StrangeError(f"and in {len(changes) - 1} more")
        return _excerpt(function, changes[0])
    except _StrangeError as strange:
        raise CannotRunError(
            f"cannot run: {source} {function.name} changes {_BOOK} in line {changes[0][-1].lineno} {strange}. specdiff "
            "knows only one such change, for a request that is decoded beside a prefill chunk. Read what this one does, "
            "and support it in replay/lift/excerpt.py."
        ) from None


def _changes(node: ast.AST, above: tuple[ast.stmt, ...]) -> Iterator[tuple[ast.stmt, ...]]:
    """Yield every change of the book as the statements around it, outermost first."""
    here = (*above, node) if isinstance(node, ast.stmt) else above
    if isinstance(node, ast.Attribute) and node.attr == _BOOK and isinstance(node.ctx, ast.Store):
        yield here
    for child in ast.iter_child_nodes(node):
        yield from _changes(child, here)


def _excerpt(function: ast.FunctionDef, change: tuple[ast.stmt, ...]) -> ast.stmt:
    """Build the excerpt for one change. Raises _StrangeError if its shape is unknown."""
    loops = [place for place, node in enumerate(change) if isinstance(node, ast.For)]
    if not loops:
        raise _StrangeError("in no loop over requests")
    loop, *conditions, write = change[loops[-1] :]
    if not conditions:
        raise _StrangeError("under no condition")
    if write not in getattr(conditions[-1], "body", ()):
        raise _StrangeError(f"in an unknown branch of line {conditions[-1].lineno}")
    excerpt = copy.copy(function)
    excerpt.args = ast.arguments([], [ast.arg(name) for name in _ARGUMENTS], None, [], [], None, [])
    excerpt.body = _nested(loop, conditions)
    excerpt.decorator_list, excerpt.returns = [], None
    if strange := sorted(free_names(ast.walk(excerpt)) - ALLOWED_BUILTINS):
        raise _StrangeError(
            f"by {' and '.join(strange)}, which is neither the request nor the batch"
        )
    return ast.fix_missing_locations(ast.copy_location(excerpt, conditions[-1]))


def _nested(holder: ast.stmt, conditions: list[ast.stmt]) -> list[ast.stmt]:
    """Return the reduced body of `holder`: the guards, then the first condition with its own reduced body."""
    first, *inner = conditions
    body: list[ast.stmt] = getattr(holder, "body", [])
    if first not in body or not isinstance(first, ast.If):
        raise _StrangeError(f"in an unknown branch that begins at line {first.lineno}")
    guards = [guard for node in body[: body.index(first)] for guard in _guard(node)]
    if not inner:
        return [*guards, ast.Expr(ast.Call(ast.Name("decide", ast.Load()), [], [])), first]
    return [*guards, ast.If(test=first.test, body=_nested(first, inner), orelse=[])]


def _guard(node: ast.stmt) -> list[ast.stmt]:
    """Return the statement if it leaves this iteration of the loop, with the `continue` replaced by a `return`."""
    if not any(isinstance(item, _LEAVES) for item in ast.walk(node)):
        return []
    if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Continue):
        before = (item for part in node.body[:-1] for item in ast.walk(part))
        if not any(isinstance(item, _LEAVES) for item in before):
            return [ast.If(test=node.test, body=[ast.Return(value=None)], orelse=[])]
    raise _StrangeError(f"after line {node.lineno}, which may leave the loop in an unknown way")
