"""The hash of a function's normalized AST.

It is the same on every Python version, and ignores comments, annotations and decorators.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

_SKIPPED = frozenset({"decorator_list", "type_comment", "type_params", "returns", "annotation"})


@cache
def function_hash(function: Any) -> str | None:
    """Return the hash of a live function without its decorators, or None if its source is unreadable.

    The result is cached: parsing blocks the interpreter, and later calls may come while the server
    is busy.
    """
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        return node_hash(ast.parse(source).body[0])
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None


@cache
def hash_in_file(path: Path, qualified_name: str) -> str | None:
    """Return the hash of `Class.method` or `function` in a source file.

    Return None if the file or the name does not exist.
    """
    try:
        body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return None
    node: ast.stmt | None = None
    for name in qualified_name.split("."):
        node = next((item for item in body if getattr(item, "name", None) == name), None)
        if node is None:
            return None
        body = getattr(node, "body", [])
    return node_hash(node) if node is not None else None


def node_hash(node: ast.AST) -> str:
    """Return the first 16 hex digits of the sha256 of a definition.

    The hash is over our own text form of the AST, because `ast.dump` differs by Python version.
    """
    return hashlib.sha256(_text(node).encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({_text(_merged(value.values))})"
    if isinstance(value, ast.AnnAssign) and value.value is not None:
        return f"Assign(targets={_text([value.target])},value={_text(value.value)})"
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields)
        return f"{type(value).__name__}({','.join(_field(*field) for field in fields if _kept(*field))})"
    if isinstance(value, list):
        return f"[{','.join(_text(item) for item in _statements(value))}]"
    return repr(value)


def _field(name: str, value: Any) -> str:
    return f"{name}={_text(value)}"


def _kept(name: str, value: Any) -> bool:
    if name in _SKIPPED or isinstance(value, ast.expr_context):
        return False
    return value is not None and value != []


def _statements(items: list[Any]) -> list[Any]:
    """Return the items without docstrings and bare annotations (`x: int`), which have no effect."""
    return [item for item in items if not _does_nothing(item)]


def _does_nothing(item: Any) -> bool:
    if isinstance(item, ast.AnnAssign):
        return item.value is None
    return (
        isinstance(item, ast.Expr)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
    )


def _merged(parts: list[ast.expr]) -> list[Any]:
    """Return the parts of an f-string with adjacent literals joined, as Python 3.12 splits them
    differently."""
    merged: list[Any] = []
    for part in parts:
        literal = part.value if isinstance(part, ast.Constant) else None
        if literal is None:
            merged.append(part)
        elif literal and merged and isinstance(merged[-1], str):
            merged[-1] += str(literal)
        elif literal:
            merged.append(str(literal))
    return merged
