"""Find which lifted functions cause a change.

Each changed function is put, alone, into the books from before the change. If those books then
differ as the change does, that function is enough to cause it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..columns.shared import Columns
from ..lift.ledger import departs_by, expected, lifted
from ..lift.link import Program
from ..lift.open import surface_of
from ..lift.reach import reached
from ..lift.roles import Role
from ..lift.surface import Definition, Surface
from ..quantity import Quantity
from ..spec import Lifted


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role whose code changed.

    `alone` tells whether this role, put into the books from before the change, makes them differ in
    the quantity of the first divergence, at its event or earlier. None means unknown: the two
    versions' code does not work together.
    """

    role: Role
    alone: bool | None
    diff: str  # unified diff of the normalized source


def role_changes(
    columns: Columns,
    before: Lifted,
    after: Lifted,
    quantities: Sequence[Quantity],
    quantity: Quantity,
    event: int,
) -> tuple[RoleChange, ...]:
    """Return every role whose code differs; those that cause the change alone come first.

    `quantities` are the ones that were compared. `quantity` and `event` are those of the first
    divergence.
    """
    old, new = surface_of(before), surface_of(after)
    values = expected(lifted(columns, before, quantities), (quantity,))

    def matters(role: Role) -> bool | None:
        try:
            program = Program(grafted(old, new, role))
            return departs_by(columns, program, values, event)
        except Exception:  # noqa: BLE001 - code mixed from two versions may fail in any way
            return None

    found = []
    for role in Role:
        if text := "".join(_diff(old, new, role)):
            found.append(RoleChange(role, matters(role), text))
    return tuple(sorted(found, key=lambda change: not change.alone))


def grafted(base: Surface, other: Surface, role: Role) -> Surface:
    """Return `base` with one role, and everything that role reaches, taken from `other`.

    The result may fail when it runs: the two versions' code may not work together.
    """
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
    """Yield the diff of one role. A function that only moved to another file yields nothing."""
    for one, other in _pairs(old, new, role):
        yield from difflib.unified_diff(
            _lines(one), _lines(other), _place(old, one), _place(new, other)
        )


def _pairs(
    old: Surface, new: Surface, role: Role
) -> Iterator[tuple[Definition | None, Definition | None]]:
    """Pair each old definition with its new one.

    The role's own function comes first, then functions with the same name, then renamed ones,
    matched by similar names. None stands for a definition that only one side has.
    """
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
