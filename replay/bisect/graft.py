"""Mix the lifted code of two sglangs: one role of the one in the other."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from dataclasses import replace

from ..lift.reach import attributes, reached, reached_by_replay, reached_from
from ..lift.roles import INNER, Role
from ..lift.surface import Definition, Surface

# How sglang's functions call the objects that have starting values of their own. Everything else
# counts as a request.
_HOLDERS = {"kv": "ReqKvInfo", "slot": "SessionSlot"}


def grafted(
    base: Surface, other: Surface, role: Role, without: Collection[Role] = ()
) -> Surface | None:
    """Return `base` with one role, and everything that role reaches, taken from `other`.

    The roles `without` remain those of `base`. None if nothing in the mixed code calls the role's
    function, because the callers know it by another name. The result may fail when it runs: the two
    versions' code may not work together.
    """
    kept = {other.roles[one.value] for one in without if one.value in other.roles}
    taken = reached_from(other, (role,), kept)
    roles = {name: key for name, key in base.roles.items() if name != role.value}
    for one in (role, *INNER):
        if other.roles.get(one.value) in taken:
            roles[one.value] = other.roles[one.value]
    definitions = {item.key: item for item in base.definitions} | taken
    members: dict[str, set[str]] = {}
    for surface in (base, other):
        for owner, keys in surface.members.items():
            members.setdefault(owner, set()).update(key for key in keys if key in definitions)
    mixed = replace(
        base,
        name=f"{base.name} with the {role.value} of {other.name}",
        roles=roles,
        definitions=tuple(definitions.values()),
        members={owner: tuple(sorted(keys)) for owner, keys in sorted(members.items())},
    )
    # Functions that are no longer called must not say which attributes the mixed code keeps.
    live = reached_by_replay(mixed)
    if role.value in other.roles and other.roles[role.value] not in live:
        return None
    return replace(
        mixed,
        roles={name: key for name, key in roles.items() if key in live},
        definitions=tuple(live.values()),
        members={
            owner: here
            for owner, keys in mixed.members.items()
            if (here := tuple(key for key in keys if key in live))
        },
        defaults=_defaults(base, other, live.values(), taken.values()),
    )


def calls(surface: Surface, role: Role, called: Collection[Role]) -> bool:
    """Whether a replay that called these roles executed the function of this one, as far as known."""
    if role in called or role not in INNER or role is Role.COMMIT_LENGTH:
        return role in called
    return surface.roles.get(role.value) in reached_from(surface, called)


def nested(surface: Surface, role: Role) -> tuple[Role, ...]:
    """Return the roles whose function this role's function leads to, but not the other way round."""
    mine = reached(surface, role)
    return tuple(
        one
        for one in Role
        if (key := surface.roles.get(one.value)) in mine
        and key != surface.roles[role.value]
        and surface.roles[role.value] not in reached(surface, one)
    )


def _defaults(
    base: Surface, other: Surface, live: Iterable[Definition], taken: Iterable[Definition]
) -> dict[str, dict[str, str]]:
    """Return the starting values of the attributes that the mixed code mentions.

    An attribute may have another name, or belong to another class, in the other version. Its
    starting value then counts only if a function from there really uses it.
    """
    anywhere = {node.attr for item in live for node in attributes(item.text)}
    used: dict[str, set[str]] = {}
    for item in taken:
        for node in attributes(item.text):
            used.setdefault(_holder(item, node.value), set()).add(node.attr)
    found: dict[str, dict[str, str]] = {}
    for owner, values in base.defaults.items():
        found[owner] = {name: text for name, text in values.items() if name in anywhere}
    owners = {_class(owner): owner for owner in found}
    for owner, values in other.defaults.items():
        mine = found.setdefault(owners.get(_class(owner), owner), {})
        for name in values.keys() & used.get(_class(owner), set()):
            mine.setdefault(name, values[name])
    return found


def _holder(item: Definition, value: ast.expr) -> str:
    """Return the class of the object whose attribute a definition mentions."""
    name = value.id if isinstance(value, ast.Name) else getattr(value, "attr", "")
    if name == "self":
        return _class(item.key.rpartition(".")[0])
    return _HOLDERS.get(name, "Req")


def _class(key: str) -> str:
    return key.rpartition(":")[2]
