"""A definition without what does not compute: decorators, annotations, docstrings, imports inside functions."""

from __future__ import annotations

import ast
import copy

_PROPERTIES = frozenset({"property", "cached_property"})


def stripped(node: ast.stmt) -> ast.stmt:
    """A cleaned copy; the imports inside are gone too, see `inner_imports`."""
    cleaned: ast.stmt = _Strip().visit(copy.deepcopy(node))
    return ast.fix_missing_locations(cleaned)


def is_property(node: ast.stmt) -> bool:
    return any(_name(item) in _PROPERTIES for item in getattr(node, "decorator_list", ()))


def is_static(node: ast.stmt) -> bool:
    return any(_name(item) == "staticmethod" for item in getattr(node, "decorator_list", ()))


def inner_imports(node: ast.stmt) -> list[ast.stmt]:
    return [item for item in ast.walk(node) if isinstance(item, (ast.Import, ast.ImportFrom))]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


class _Strip(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list, node.returns, node.type_comment = [], None, None
        self.generic_visit(node)
        node.body = _without_docstring(node.body) or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list = []
        self.generic_visit(node)
        node.body = _without_docstring(node.body) or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation, node.type_comment = None, None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return ast.Pass()
        self.generic_visit(node)
        return ast.Assign(targets=[node.target], value=node.value)

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        return ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return ast.Pass()


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:]
    return body
