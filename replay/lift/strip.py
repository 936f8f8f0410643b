"""Remove what does not compute from a definition: harmless decorators, annotations, docstrings and inner imports."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, cast

_PROPERTIES = frozenset({"property", "cached_property"})
# No book depends on these decorators: descriptors, markers for readers, compilers, gradients and
# profilers.
_HARMLESS = _PROPERTIES | frozenset(
    """
    staticmethod classmethod abstractmethod override final dataclass contextmanager
    cache lru_cache wraps total_ordering DynamicGradMode scheduler_stage_method
    """.split()  # noqa: SIM905
)
_HARMLESS_MODULES = frozenset({"torch", "functools", "triton", "nvtx", "abc", "typing"})
_DROPPED = frozenset({"annotation", "returns", "type_comment"})


def stripped(node: ast.stmt) -> ast.stmt:
    """Return a cleaned copy that shares the original's expressions.

    Inner imports are removed too; see `inner_imports`.
    """
    return cast(ast.stmt, _copied(node))


def is_property(node: ast.stmt) -> bool:
    return any(_name(item) in _PROPERTIES for item in getattr(node, "decorator_list", ()))


def is_static(node: ast.stmt) -> bool:
    return any(_name(item) == "staticmethod" for item in getattr(node, "decorator_list", ()))


def inner_imports(nodes: Iterable[ast.AST]) -> list[ast.stmt]:
    return [item for item in nodes if isinstance(item, (ast.Import, ast.ImportFrom))]


def _is_harmless(node: ast.expr) -> bool:
    """Whether a decorator changes nothing that a book depends on."""
    called = node.func if isinstance(node, ast.Call) else node
    first = called
    while isinstance(first, ast.Attribute):
        first = first.value
    return _name(called) in _HARMLESS or _name(first) in _HARMLESS_MODULES


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _copied(node: ast.AST) -> ast.AST:
    """Copy and clean in one pass.

    `copy.deepcopy` with a NodeTransformer takes ten times as long.
    """
    if isinstance(node, (ast.expr, ast.expr_context, ast.operator)):
        return node  # expressions contain nothing to strip
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return ast.Pass()
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno)
    copied = type(node)()
    # Positions are copied too, because ast.unparse needs the line of a statement.
    copied.__dict__.update((name, _value(name, value)) for name, value in vars(node).items())
    if isinstance(copied, (ast.FunctionDef, ast.ClassDef)):
        copied.decorator_list = [item for item in copied.decorator_list if not _is_harmless(item)]
        copied.body = _without_docstring(copied.body) or [ast.Pass()]
    return copied


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) if isinstance(item, ast.AST) else item for item in value]
    if name in _DROPPED:
        return None
    return _copied(value) if isinstance(value, ast.AST) else value


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:]
    return body
