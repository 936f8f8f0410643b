"""Turn text into functions: compile a surface once and bind it to the stand-ins of one replay."""

from __future__ import annotations

import ast
import builtins
import importlib
from functools import cached_property
from types import CodeType
from typing import Any

from .allowed_names import BUILTINS
from .missing import Missing
from .roles import Role
from .standins.base import Decorated, StandIn, Unknown
from .standins.batch import Batch
from .standins.class_map import BASES
from .standins.globals import stand_ins
from .standins.request import Kv, Request
from .standins.scheduler import Capturer
from .standins.server_args import ServerArgs
from .standins.session import SessionSlot
from .surface import Binding, Definition, Means, Surface


class Program:
    """The lifted code of one sglang: a surface that is compiled at its first run.

    Many programs are never run here, only compared with results from elsewhere.
    """

    def __init__(self, surface: Surface) -> None:
        self.surface = surface

    @property
    def name(self) -> str:
        return self.surface.name

    @cached_property
    def code(self) -> dict[str, CodeType]:
        """The compiled code by definition key."""
        return {item.key: self._compiled(item) for item in self.surface.definitions}

    def _compiled(self, definition: Definition) -> CodeType:
        above = "\n" * (definition.line - 1)  # so that tracebacks show a line near the original
        name = f"<{self.surface.name} {definition.key}>"
        return compile(above + definition.text, name, "exec")


class Defaults(dict[str, Any]):
    """Literal starting values of attributes, by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._own = [name for name, value in values.items() if isinstance(value, (list, dict))]

    def fresh(self) -> dict[str, Any]:
        """Return the values for one object.

        Lists and dicts are copied, so that objects do not share them.
        """
        fields: dict[str, Any] = {**self}
        for name in self._own:
            fields[name] = self[name].copy()
        return fields


class Linked:
    """The functions and classes of one replay.

    `types` maps each stand-in class to a subclass with the lifted members.
    """

    def __init__(self, program: Program, server_args: ServerArgs) -> None:
        self._program = program
        self._definitions = {item.key: item for item in program.surface.definitions}
        self._objects: dict[str, Any] = {}
        self.types: dict[type[StandIn], type[Any]] = {base: base for base in BASES.values()}
        self._capturer = Capturer()
        self._known = stand_ins(server_args, self._capturer)
        self._subclass()
        self._capturer.__class__ = self.types[Capturer]
        self.request_defaults = self._defaults("Req")
        self.kv_defaults = self._defaults("ReqKvInfo")
        self.draft_defaults = self._defaults("DFlashDraftInputV2")
        self._slot_defaults = self._defaults("SessionSlot")
        self._known |= {"Req": self.types[Request], "ScheduleBatch": self.types[Batch]}
        self._known |= {"ReqKvInfo": self._record, "SessionSlot": self._slot}
        for definition in program.surface.definitions:
            self._make(definition.key)
        for base, members in self._members.items():
            for key in members:
                setattr(self.types[base], self._definitions[key].name, self._member(key))

    def role(self, role: Role) -> Any:
        """Return the function that plays a role, unbound; None if this sglang has none."""
        key = self._program.surface.roles.get(role.value)
        return None if key is None else self._objects[key]

    def named(self, name: str) -> Any:
        """Return a class or function of this sglang that was lifted with the roles; None if no role mentions it."""
        return next((item for key, item in self._objects.items() if key.endswith(f":{name}")), None)

    def record(self, pool_idx: int | None) -> Kv:
        """Return a `ReqKvInfo` with unknown lengths."""
        kv: Kv = self.types[Kv](pool_idx)
        kv.__dict__ = self.kv_defaults.fresh() | kv.__dict__
        return kv

    def _record(self) -> Kv:
        """Return a new `ReqKvInfo` as sglang makes it, with lengths of 0."""
        kv = self.record(None)
        kv.kv_committed_len = kv.kv_allocated_len = 0
        return kv

    def _slot(self, **given: Any) -> SessionSlot:
        """Return a new `SessionSlot`."""
        slot: SessionSlot = self.types[SessionSlot](
            self._slot_defaults.fresh(), self._record, given
        )
        return slot

    def has(self, owner: str, member: str) -> bool:
        """Whether this member of a class was lifted."""
        keys = self._program.surface.members.items()
        return any(key.endswith(f":{owner}") and f"{key}.{member}" in found for key, found in keys)

    def _subclass(self) -> None:
        """Create the stand-in subclasses.

        The members of one stand-in may come from several sglang classes.
        """
        self._members: dict[type[StandIn], list[str]] = {}
        for owner, keys in self._program.surface.members.items():
            base = BASES.get(owner.rpartition(":")[2])
            if base is not None:
                self._members.setdefault(base, []).extend(keys)
        for base in self._members:
            self.types[base] = type(base.__name__, (base,), {})

    def _make(self, key: str) -> Any:
        """Execute a definition once and bind its global names."""
        if key in self._objects:
            return self._objects[key]
        definition = self._definitions[key]
        space: dict[str, Any] = {"__builtins__": BUILTINS, "__name__": definition.key}
        late = []
        decorated = definition.text.startswith("@")  # its decorators run immediately
        for binding in definition.bindings:
            if binding.means is Means.LIFTED and definition.sort != "class" and not decorated:
                late.append(
                    binding
                )  # bound later, because functions may call each other in a cycle
            else:
                space[binding.name] = self._value(binding)
        try:
            exec(self._program.code[key], space)  # noqa: S102 (the sources are trusted)
        except (Missing, Exception):
            if not decorated:
                raise
            space[definition.name] = Decorated(definition.text.partition("\n")[0], definition.name)
        self._objects[key] = space[definition.name]
        for binding in late:
            space[binding.name] = self._value(binding)
        return self._objects[key]

    def _value(self, binding: Binding) -> Any:
        """Return the object that a binding refers to."""
        if binding.means is Means.LIFTED:
            return self._make(binding.value)
        if binding.means is Means.STAND_IN:
            return self._known[binding.value]
        if binding.means is Means.LITERAL:
            return ast.literal_eval(binding.value)
        if binding.means is Means.STDLIB:
            module, _, name = binding.value.partition(":")
            found = importlib.import_module(module)
            return getattr(found, name) if name else found
        return Unknown(binding.value)

    def _member(self, key: str) -> Any:
        """Return a lifted member as the property, static method or function that it is."""
        definition: Definition = self._definitions[key]
        member = self._objects[key]
        if definition.sort == "property":
            return builtins.property(member)
        return builtins.staticmethod(member) if definition.sort == "static" else member

    def _defaults(self, owner: str) -> Defaults:
        """Return the starting values of a class, without those that the stand-in keeps as properties."""
        found = self._program.surface.defaults.items()
        texts = next((values for key, values in found if key.endswith(f":{owner}")), {})
        taken = vars(Request) if owner == "Req" else {}
        return Defaults(
            {
                name: ast.literal_eval(text)
                for name, text in texts.items()
                if not isinstance(taken.get(name), builtins.property)
            }
        )
