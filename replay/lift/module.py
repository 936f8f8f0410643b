"""A parsed source file: what it defines, imports and assigns at its top level."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from platform import python_version

from .missing import CannotRunError
from .source import Source


@dataclass(frozen=True, slots=True)
class ImportOrigin:
    """Where an imported name comes from. If `name` is None, the module itself was imported."""

    module: str
    name: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """The names that one source file binds at its top level."""

    path: str  # relative to the package: srt/managers/schedule_batch.py
    definitions: dict[str, ast.stmt]
    imports: dict[str, ImportOrigin]
    assigned: dict[str, ast.expr]
    ambiguous: frozenset[str] = (
        frozenset()
    )  # bound more than once; only a run shows which binding counts

    def find(self, qualified: str) -> ast.stmt | None:
        """Return the definition of `function` or `Class.method`."""
        owner, _, member = qualified.partition(".")
        node = self.definitions.get(owner)
        if not member or node is None:
            return node
        return members(node).get(member) if isinstance(node, ast.ClassDef) else None


class Modules:
    """The files of one source, each read and parsed once, at first use."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parsed: dict[str, Module | None] = {}

    @property
    def read(self) -> list[str]:
        """The files that were requested and exist."""
        return [path for path, module in self._parsed.items() if module]

    def text(self, path: str) -> str | None:
        """Return a file's text; None if it does not exist or cannot be read as text."""
        try:
            return self._source.read(path)
        except (ValueError, OSError):
            return None

    def definition(self, key: str) -> ast.stmt | None:
        """Return a definition by its key, path:Qualified.name."""
        path, _, qualified = key.partition(":")
        module = self.at(path)
        return module.find(qualified) if module else None

    def at(self, path: str) -> Module | None:
        """Return the parsed file at this path; None if there is none."""
        if path not in self._parsed:
            self._parsed[path] = self._read(path)
        return self._parsed[path]

    def _read(self, path: str) -> Module | None:
        """Read a file. Raises CannotRunError if it exists but is not valid Python."""
        name = self._source.name
        try:
            text = self._source.read(path)
            return None if text is None else _parse(path, text)
        except (SyntaxError, ValueError, OSError) as error:
            raise CannotRunError(
                f"cannot run: {name} {path} is not Python that Python {python_version()} can read: {error}"
            ) from None

    def named(self, dotted: str) -> Module | None:
        """Return a module by its import name, such as sglang.srt.mem_cache.common."""
        path = "/".join(dotted.split(".")[1:])
        return self.at(f"{path}.py") or self.at(f"{path}/__init__.py")


def members(node: ast.ClassDef) -> dict[str, ast.stmt]:
    """Return the methods of a class. For a property this is the getter, not the setter after it."""
    found: dict[str, ast.stmt] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found.setdefault(item.name, item)
    return found


def imports_of(nodes: list[ast.stmt]) -> Iterator[tuple[str, ImportOrigin]]:
    """Yield (name bound, origin) for every import among these statements."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, ImportOrigin(node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, ImportOrigin(alias.name if alias.asname else bound, None)


def _parse(path: str, text: str) -> Module:
    body = list(_flat(ast.parse(text).body))
    definitions: dict[str, ast.stmt] = {
        node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    return Module(
        path, definitions, dict(imports_of(body)), dict(_assigned(body)), _bound_twice(body)
    )


def _bound_twice(body: list[ast.stmt]) -> frozenset[str]:
    """Return the names that are bound more than once."""
    imported = set(imports_of(body))  # a repeated import binds the same object
    names = [name for name, _ in imported] + [name for name, _ in _assigned(body)]
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return frozenset(name for name, count in Counter(names).items() if count > 1)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the top-level statements, including those inside top-level `if` and `try` blocks."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _flat(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _flat(node.body + node.orelse + node.finalbody)


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            yield node.target.id, node.value
