"""Search functions that are not lifted: where a source's files mention a name, and where they call it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from .module import Module, Modules, members

# Searched in addition to the files that were lifted from, because they call the lifted functions.
_CALLERS = ("srt/managers/scheduler.py", "srt/speculative/spec_utils.py")


def files(modules: Modules) -> list[str]:
    """Return the paths of the files to search."""
    return sorted({*modules.read, *_CALLERS})


def mentioning(
    modules: Modules, path: str, words: Collection[str]
) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the functions and methods of a file that contain any of these words."""
    text = modules.text(path) or ""
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(words))})\b")
    # lines as ast counts them, which differs from `splitlines`
    lines = [n for n, line in enumerate(text.split("\n"), 1) if pattern.search(line)]
    module = modules.at(path) if lines else None
    for name, node in functions(module) if module else ():
        if any(node.lineno <= line <= (node.end_lineno or 0) for line in lines):
            yield name, node


def functions(module: Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield every top-level function and every method with its qualified name."""
    for name, node in module.definitions.items():
        if isinstance(node, ast.ClassDef):
            for member, function in members(node).items():
                yield f"{name}.{member}", function
        else:
            yield name, node


def calls_of(node: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield every call of a function or method of this name."""
    for item in ast.walk(node):
        if isinstance(item, ast.Call):
            called = item.func
            if name == (
                called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            ):
                yield item
