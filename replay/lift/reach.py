"""Find the code that a role's function leads to inside a surface: it decides what the role does."""

from __future__ import annotations

import ast

from .roles import Role
from .surface import Definition, Means, Surface


def reached(surface: Surface, role: Role) -> dict[str, Definition]:
    """Return, by key, the definition that plays the role and everything it can call, directly or indirectly.

    A member counts as reached wherever an attribute of its name is mentioned on any object, so the
    result may contain too much but not too little. It is empty if this sglang has no such role.
    """
    known = {item.key: item for item in surface.definitions}
    members: dict[str, list[str]] = {}
    for keys in surface.members.values():
        for key in keys:
            members.setdefault(known[key].name, []).append(key)
    found: dict[str, Definition] = {}
    ahead = [surface.roles[role.value]] if role.value in surface.roles else []
    while ahead:
        key = ahead.pop()
        if key in found:
            continue
        found[key] = item = known[key]
        ahead += [bound.value for bound in item.bindings if bound.means is Means.LIFTED]
        for node in ast.walk(ast.parse(item.text)):
            if isinstance(node, ast.Attribute):
                ahead += members.get(node.attr, ())
    return dict(sorted(found.items()))
