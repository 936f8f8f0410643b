"""Inside a change: which lifted function made it, shown by putting that one function alone into the books before."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..columns.shared import Columns
from ..lift.ledger import departs_by, expected, lifted
from ..lift.link import Books
from ..lift.open import surface_of
from ..lift.reach import reached
from ..lift.roles import Role
from ..lift.surface import Definition, Surface
from ..quantity import Quantity
from ..spec import Lifted


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role whose code changed. `alone`: put into the books before, it makes them depart in the quantity of the first
    divergence, by its event; None: the two do not fit together, so that nobody knows."""

    role: Role
    alone: bool | None
    diff: str  # unified, of the normalised source


def role_changes(
    columns: Columns,
    before: Lifted,
    after: Lifted,
    quantities: Sequence[Quantity],
    quantity: Quantity,
    event: int,
) -> tuple[RoleChange, ...]:
    """Every role whose code differs, those that matter alone first.

    `quantities`: that were compared; `quantity`, `event`: of the first divergence.
    """
    old, new = surface_of(before), surface_of(after)
    values = expected(lifted(columns, before, quantities), (quantity,))

    def matters(role: Role) -> bool | None:
        try:
            books = Books(grafted(old, new, role))
            return departs_by(columns, books, values, event)
        except Exception:  # noqa: BLE001 - nobody's code: parts that do not fit together may fail anywhere
            return None

    found = []
    for role in Role:
        if text := "".join(_diff(old, new, role)):
            found.append(RoleChange(role, matters(role), text))
    return tuple(sorted(found, key=lambda change: not change.alone))


def grafted(base: Surface, other: Surface, role: Role) -> Surface:
    """`base` with one role, and all that it reaches, from `other`. It may not run: the two may not fit together."""
    taken = reached(other, role)
    definitions = {item.key: item for item in base.definitions} | taken
    members: dict[str, set[str]] = {}
    for surface in (base, other):
        for owner, keys in surface.members.items():
            members.setdefault(owner, set()).update(key for key in keys if key in definitions)
    roles = {name: key for name, key in base.roles.items() if name != role.value}
    if role.value in other.roles:
        roles[role.value] = other.roles[role.value]
    owners = base.defaults.keys() | other.defaults.keys()
    return replace(
        base,
        name=f"{base.name} with the {role.value} of {other.name}",
        roles=roles,
        definitions=tuple(definitions[key] for key in sorted(definitions)),
        defaults={o: {**other.defaults.get(o, {}), **base.defaults.get(o, {})} for o in owners},
        members={owner: tuple(sorted(keys)) for owner, keys in sorted(members.items())},
    )


def _diff(old: Surface, new: Surface, role: Role) -> Iterator[str]:
    """A function that only moved to another file did not change."""
    for one, other in _pairs(old, new, role):
        yield from difflib.unified_diff(
            _lines(one), _lines(other), _place(old, one), _place(new, other)
        )


def _pairs(
    old: Surface, new: Surface, role: Role
) -> Iterator[tuple[Definition | None, Definition | None]]:
    """Which definition became which: the role's own first, then those of one name, then the renamed, by likeness."""
    before, after = (
        {item.name: item for item in reached(surface, role).values()} for surface in (old, new)
    )
    own, then = (
        surface.roles.get(role.value, "").rpartition(":")[2].rpartition(".")[2]
        for surface in (old, new)
    )
    if own in before and then in after:
        yield before.pop(own), after.pop(then)
    for name in [name for name in before if name in after]:
        yield before.pop(name), after.pop(name)
    for name in list(before):
        near = difflib.get_close_matches(name, after, n=1)
        yield before.pop(name), after.pop(near[0]) if near else None
    yield from ((None, item) for item in after.values())


def _lines(item: Definition | None) -> list[str]:
    return [] if item is None else [f"{line}\n" for line in item.text.split("\n")]


def _place(surface: Surface, item: Definition | None) -> str:
    if item is None:
        return f"{surface.name} (not there)"
    path, _, name = item.key.partition(":")
    return f"{surface.name} {path}:{item.line} {name}"
