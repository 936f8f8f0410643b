"""Read what a definition mentions: free names, attributes read and written, literal starting values."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

_BOOK_KEEPERS = (
    "req",
    "r",
    "batch",
    "result",
    "self",
    "other",
)  # variable names in sglang's functions


def free_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the free names of a definition, given all its nodes."""
    read: set[str] = set()
    bound: set[str] = set()
    for item in nodes:
        if isinstance(item, ast.Name):
            (read if isinstance(item.ctx, ast.Load) else bound).add(item.id)
        elif isinstance(item, ast.arg):
            bound.add(item.arg)
        elif isinstance(item, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            bound.add(item.name or "")
    return read - bound


def reads(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the attributes that are read on requests, batches and results, as source text."""
    for item in nodes:
        if not isinstance(item, ast.Attribute) or not isinstance(item.ctx, ast.Load):
            continue
        if _leftmost(item) in _BOOK_KEEPERS:  # checked first, because unparsing is slow
            text = ast.unparse(item)
            if text.partition(".")[0] in _BOOK_KEEPERS:
                yield text


def _leftmost(node: ast.expr) -> str | None:
    """Return the name that the expression begins with."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def written(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names of the attributes that are set or changed in place."""
    for item in nodes:
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
            yield item.attr
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            inner = item.func.value  # req.histogram.extend(...) changes an attribute, too
            if isinstance(inner, ast.Attribute):
                yield inner.attr


def init_literals(node: ast.stmt | None) -> Iterator[tuple[str, str]]:
    """Yield each attribute's starting value.

    Attributes with more than one possible start are left out.
    """
    found: dict[str, set[str | None]] = {}
    for item in ast.walk(node) if node else ():
        if not isinstance(item, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            continue
        target = item.targets[0] if isinstance(item, ast.Assign) else item.target
        if isinstance(target, ast.Attribute) and item.value is not None:
            plain = not isinstance(item, ast.AugAssign) and is_literal(item.value)
            text = ast.unparse(item.value) if plain else None
            found.setdefault(target.attr, set()).add(text)
    for name, texts in found.items():
        text = texts.pop()
        if not texts and text is not None:
            yield name, text


def field_literals(node: ast.stmt | None) -> Iterator[tuple[str, str]]:
    """Yield the literal starting values of a dataclass's fields."""
    for item in getattr(node, "body", ()):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if item.value is not None and is_literal(item.value):
            yield item.target.id, ast.unparse(item.value)
        elif literal := _made_by(item.value):
            yield item.target.id, literal


def _made_by(node: ast.expr | None) -> str | None:
    """Return the empty container that `field(default_factory=...)` creates, as source text."""
    for keyword in node.keywords if isinstance(node, ast.Call) else ():
        if keyword.arg == "default_factory" and isinstance(keyword.value, ast.Name):
            return {"dict": "{}", "list": "[]"}.get(keyword.value.id)
    return None


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True
