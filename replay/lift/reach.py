"""Find the code that a role's function leads to inside a surface: it decides what the role does."""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import lru_cache

from .roles import INNER, Role
from .standins.batch import ASKED_BY_TREE
from .surface import Definition, Means, Surface


def reached(surface: Surface, role: Role) -> dict[str, Definition]:
    """Return, by key, the definition that plays the role and everything it can call, directly or indirectly.

    A member counts as reached wherever an attribute of its name is mentioned on any object, so the
    result may contain too much but not too little. It is empty if this sglang has no such role.
    """
    return reached_from(surface, (role,))


def reached_from(
    surface: Surface, roles: Collection[Role], without: Collection[str] = ()
) -> dict[str, Definition]:
    """Return the same for several roles together, without these keys and what only they lead to."""
    known = {item.key: item for item in surface.definitions}
    members: dict[str, list[str]] = {}
    for keys in surface.members.values():
        for key in keys:
            members.setdefault(known[key].name, []).append(key)
    found: dict[str, Definition] = {}
    ahead = [surface.roles[role.value] for role in roles if role.value in surface.roles]
    while ahead:
        key = ahead.pop()
        if key in found or key in without:
            continue
        found[key] = item = known[key]
        ahead += [bound.value for bound in item.bindings if bound.means is Means.LIFTED]
        for name in _mentioned(item.text):
            ahead += members.get(name, ())
    return dict(sorted(found.items()))


def reached_by_replay(surface: Surface) -> dict[str, Definition]:
    """Return everything that a replay can call."""
    called = set(Role) - INNER
    if surface.roles.get(Role.COMMIT_LENGTH.value, "").endswith(f".{ASKED_BY_TREE}"):
        called.add(Role.COMMIT_LENGTH)
    return reached_from(surface, called)


@lru_cache(maxsize=4096)
def _mentioned(text: str) -> frozenset[str]:
    """Return the names of all attributes that this text mentions."""
    return frozenset(node.attr for node in attributes(text))


@lru_cache(maxsize=4096)
def attributes(text: str) -> tuple[ast.Attribute, ...]:
    """Return every mention of an attribute in this text."""
    return tuple(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute))
