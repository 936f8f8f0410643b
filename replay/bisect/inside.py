"""Find which lifted functions cause a change.

Each changed function is put, alone, into the books from before the change. If those books then
differ as the change does, that function is enough to cause it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ..columns.shared import Columns
from ..lift.departure import Expected
from ..lift.ledger import departs_by, expected, lifted
from ..lift.link import Program
from ..lift.open import surface_of
from ..lift.reach import reached
from ..lift.roles import Role
from ..lift.surface import Definition, Surface
from ..quantity import Quantity
from ..spec import Lifted
from .graft import calls, grafted, nested


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role whose code changed.

    `alone` tells whether this role, put into the books from before the change, makes them differ in
    the quantity of the first divergence, at its event or earlier. It is False if the recording
    never calls the role, or if only another role that it calls makes the difference (it stays True
    if that cannot be tried). None means unknown: the two versions' code does not work together.
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
    mixes = _Mixes(columns, old, new, values, event)
    diffs = {role: text for role in Role if (text := "".join(_diff(old, new, role)))}
    alone = {role: mixes.differ(role) for role in diffs}
    causes = {role for role, differs in alone.items() if differs}
    for role in causes:
        # If a function that this one calls causes the change by itself, this one must add to it.
        inner = causes.intersection(nested(new, role))
        alone[role] = not inner or mixes.differ(role, inner) is not False
    found = [RoleChange(role, alone[role], text) for role, text in diffs.items()]
    return tuple(sorted(found, key=lambda change: not change.alone))


@dataclass(frozen=True, slots=True)
class _Mixes:
    """Tries the code of one version inside that of another."""

    columns: Columns
    old: Surface
    new: Surface
    values: Expected
    event: int

    def differ(self, role: Role, without: Collection[Role] = ()) -> bool | None:
        """Whether the old books with this new role differ because of it; None if they cannot run.

        A role that was never called cannot be the reason. Its code may only bring along what others
        call.
        """
        try:
            mixed = grafted(self.old, self.new, role, without)
            if mixed is None:
                return None
            called = departs_by(self.columns, Program(mixed), self.values, self.event)
            if called is None:
                return False
            return role.value not in mixed.roles or calls(mixed, role, called)
        except Exception:  # noqa: BLE001 - code mixed from two versions may fail in any way
            return None


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
