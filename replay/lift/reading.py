"""What a definition mentions: free names, attributes read and written, literal starting values."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_BOOK_KEEPERS = ("req", "r", "batch", "result", "self", "other")  # as sglang's functions call them


def free_names(node: ast.stmt) -> set[str]:
    read: set[str] = set()
    bound = {getattr(node, "name", "")}
    for item in ast.walk(node):
        if isinstance(item, ast.Name):
            (read if isinstance(item.ctx, ast.Load) else bound).add(item.id)
        elif isinstance(item, ast.arg):
            bound.add(item.arg)
        elif isinstance(item, ast.ExceptHandler) and item.name:
            bound.add(item.name)
    return read - bound


def reads(node: ast.stmt) -> Iterator[str]:
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load):
            text = ast.unparse(item)
            if text.partition(".")[0] in _BOOK_KEEPERS:
                yield text


def written(node: ast.stmt) -> Iterator[str]:
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
            yield item.attr
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            inner = item.func.value  # req.histogram.extend(...) keeps it, too
            if isinstance(inner, ast.Attribute):
                yield inner.attr


def init_literals(node: ast.stmt | None) -> Iterator[tuple[str, str]]:
    for item in ast.walk(node) if node else ():
        target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
        value = getattr(item, "value", None)
        if isinstance(target, ast.Attribute) and isinstance(value, ast.expr) and is_literal(value):
            yield target.attr, ast.unparse(value)


def field_literals(node: ast.stmt | None) -> Iterator[tuple[str, str]]:
    for item in getattr(node, "body", ()):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if item.value is not None and is_literal(item.value):
            yield item.target.id, ast.unparse(item.value)


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True
