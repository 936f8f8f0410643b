"""Lift a source into a surface: find each role and everything it reaches.

The source is only read, never imported.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .allowed_names import ALLOWED_BUILTINS, ALLOWED_MODULES, STAND_INS
from .arguments import check_arguments
from .ast_reading import field_literals, free_names, init_literals, is_literal, reads, written
from .excerpt import commit_of_tails
from .missing import CannotRunError
from .module import ImportOrigin, Module, Modules, imports_of, members
from .roles import DFLASH_DRAFT, ESSENTIAL, EXCERPTS, PLACES, REQ, REQ_KV, SLOT, Role
from .source import Source
from .standins.class_map import answers
from .strip import inner_imports, is_property, is_static, stripped
from .surface import Binding, Definition, Means, Surface
from .writers import Writers

_REQUESTS = frozenset({"req", "r"})  # sglang's variable names for a request
_MAX_REEXPORTS = 5


def lift(source: Source) -> Surface:
    """Lift the source. Raises CannotRunError if an essential role is not found."""
    with _no_collections():
        return _Lift(source).surface()


@contextmanager
def _no_collections() -> Iterator[None]:
    """Turn the garbage collector off.

    Parsing makes a million objects and no garbage; collecting would double the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Lift:
    """Lifts one source."""

    def __init__(self, source: Source) -> None:
        self._source, self._modules = source, Modules(source)
        self._definitions: dict[str, Definition] = {}
        self._members: dict[str, list[str]] = {}
        self._written: set[str] = set()
        self._kv = next((place for place in REQ_KV if self._find(place)), None)
        self._slot = next((place for place in SLOT if self._find(place)), None)

    def surface(self) -> Surface:
        """Lift all roles and check that nothing relevant is left out."""
        roles = {role.value: place for role in Role if (place := self._place(role))}
        if absent := [role.value for role in ESSENTIAL if role.value not in roles]:
            raise CannotRunError(
                f"cannot run: {self._source.name} has no {' and no '.join(absent)} function at any known "
                "place. specdiff lifts sglang 0.5.9 and newer. Older versions do not run spec v2 under the overlap "
                "scheduler, and a newer one may have renamed the function."
            )
        for place in roles.values():
            self._add(place)
        defaults = self._defaults()
        kept = {name for values in defaults.values() for name in values}
        others = Writers(self._source.name, self._modules, roles, self._definitions, kept)
        others.check()
        check_arguments(self._source.name, self._modules, roles)
        return Surface(
            name=self._source.name,
            roles=roles,
            definitions=tuple(self._definitions[key] for key in sorted(self._definitions)),
            defaults=defaults,
            members={key: tuple(sorted(found)) for key, found in sorted(self._members.items())},
            no_sums=others.of_sums(),
        )

    def _place(self, role: Role) -> str | None:
        """Return where this source keeps a role; None if it has none."""
        places = PLACES[role]
        direct = next((place for place in places if self._find(place)), None)
        return direct or next(filter(None, map(self._inherited, places)), None)

    def _inherited(self, place: str) -> str | None:
        """Return the place in a base class that is imported from another module; only direct bases are searched."""
        path, _, qualified = place.partition(":")
        owner, _, member = qualified.partition(".")
        module, found = self._modules.at(path), self._find(f"{path}:{owner}")
        if module is None or not member or not isinstance(found, ast.ClassDef):
            return None
        for base in found.bases:
            origin = module.imports.get(base.id) if isinstance(base, ast.Name) else None
            home = self._modules.named(origin.module) if origin else None
            if home and self._find(there := f"{home.path}:{origin and origin.name}.{member}"):
                return there
        return None

    def _find(self, key: str) -> ast.stmt | None:
        """Return the definition for a key, or the excerpt if only an excerpt is lifted."""
        found = self._modules.definition(key)
        return commit_of_tails(found, self._source.name) if key in EXCERPTS else found

    def _add(self, key: str) -> None:
        """Lift one definition and everything it leads to."""
        if key in self._definitions:
            return
        path, _, qualified = key.partition(":")
        module, node = self._modules.at(path), self._find(key)
        assert module is not None and node is not None
        local = dict(imports_of(inner_imports(ast.walk(node))))
        clean = stripped(node)
        nodes = list(ast.walk(clean))
        names = sorted(free_names(nodes))
        bindings = tuple(b for name in names if (b := self._binding(module, name, local)))
        self._definitions[key] = Definition(
            key,
            ast.unparse(clean),
            node.lineno,
            _sort(node),
            bindings,
            tuple(sorted(set(reads(nodes)))),
        )
        self._written |= set(written(nodes))
        if owner := qualified.rpartition(".")[0]:
            self._members.setdefault(f"{path}:{owner}", []).append(key)
        for binding in bindings:
            if binding.means is Means.LIFTED:
                self._add(binding.value)
        for member in self._members_reached(f"{path}:{owner}" if owner else "", nodes):
            self._add(member)

    def _binding(self, module: Module, name: str, local: dict[str, ImportOrigin]) -> Binding | None:
        """Return what a global name of a lifted definition refers to; None for an allowed builtin."""
        if name in STAND_INS:
            return Binding(name, Means.STAND_IN, name)
        if name in local:
            module = Module(module.path, {}, local, {})
        elif name in ALLOWED_BUILTINS and name not in module.definitions:
            return None
        return self._meaning(module, name, name, _MAX_REEXPORTS)

    def _meaning(self, module: Module, bound: str, name: str, depth: int) -> Binding:
        """Return the meaning of a name: `bound` is the name in the lifted code, `name` the name in this module."""
        if name in module.ambiguous:
            return Binding(bound, Means.UNKNOWN, f"{name}, bound more than once in {module.path}")
        if name in module.definitions:
            return Binding(bound, Means.LIFTED, f"{module.path}:{name}")
        if name in module.assigned:
            return _literal(bound, module.assigned[name])
        origin = module.imports.get(name)
        if origin is not None and origin.module.partition(".")[0] in ALLOWED_MODULES:
            return Binding(bound, Means.STDLIB, f"{origin.module}:{origin.name or ''}")
        if origin is not None and origin.name and origin.module.startswith("sglang.") and depth:
            if origin.name in STAND_INS:  # imported under a different name
                return Binding(bound, Means.STAND_IN, origin.name)
            target = self._modules.named(origin.module)
            if target is not None:
                return self._meaning(target, bound, origin.name, depth - 1)
        return Binding(bound, Means.UNKNOWN, name)

    def _members_reached(self, owner: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
        """Yield the methods and properties of requests, their KV info and `self` that this definition mentions."""
        for item in nodes:
            if not isinstance(item, ast.Attribute):
                continue
            for holder in self._holders(owner, item.value):
                path, _, name = holder.partition(":")
                found = self._find(holder)
                if not isinstance(found, ast.ClassDef) or answers(name, item.attr):
                    continue
                if item.attr in members(found):
                    yield f"{path}:{name}.{item.attr}"

    def _holders(self, owner: str, value: ast.expr) -> Iterable[str]:
        """Return the keys of the classes that an expression may be an instance of."""
        if isinstance(value, ast.Attribute) and value.attr == "kv" and self._kv:
            return (self._kv,)
        if isinstance(value, ast.Name) and value.id == "self" and owner:
            return (owner,)
        if isinstance(value, ast.Name) and value.id in _REQUESTS:
            return (REQ,)
        if isinstance(value, ast.Name) and value.id == "slot" and self._slot:
            return (self._slot,)
        return (REQ,) if isinstance(value, ast.Subscript) else ()

    def _defaults(self) -> dict[str, dict[str, str]]:
        """Return sglang's starting values of the attributes that the lifted code writes."""
        found = {REQ: dict(init_literals(self._find(f"{REQ}.__init__")))}
        for fielded in filter(None, (self._kv, self._slot, DFLASH_DRAFT)):
            found[fielded] = dict(field_literals(self._find(fielded)))
        return {
            owner: {name: text for name, text in sorted(values.items()) if name in self._written}
            for owner, values in found.items()
        }


def _sort(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "property" if is_property(node) else "static" if is_static(node) else "function"


def _literal(name: str, node: ast.expr) -> Binding:
    """Return a constant as a literal binding if it is one that cannot change."""
    # A list or dict can be changed, and this function does not show by what.
    if not is_literal(node) or isinstance(node, (ast.List, ast.Dict, ast.Set)):
        return Binding(name, Means.UNKNOWN, name)
    return Binding(name, Means.LITERAL, ast.unparse(node))
