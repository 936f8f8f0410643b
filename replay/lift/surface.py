"""What was lifted from one sglang: the text of every definition that its roles reach, and what its global names mean."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Means(str, Enum):
    """What a global name of a lifted definition refers to."""

    LIFTED = "lifted"  # another lifted definition; `value` is its key
    STAND_IN = "stand-in"  # one of our stand-ins; `value` is its name
    LITERAL = "literal"  # a constant of the module; `value` is its source text
    STDLIB = "stdlib"  # an allow-listed module, or a name in one
    UNKNOWN = "unknown"  # listed in the report; using it stops the path


@dataclass(frozen=True, slots=True)
class Binding:
    """A global name of a lifted definition and what it refers to."""

    name: str
    means: Means
    value: str


@dataclass(frozen=True, slots=True)
class Definition:
    """One function, method or class.

    `key` is path:Qualified.name; `text` is its stripped, normalized source.
    """

    key: str
    text: str
    line: int
    sort: str  # function, property, static or class
    bindings: tuple[Binding, ...]
    reads: tuple[str, ...]  # attributes of requests, batches and results

    @property
    def name(self) -> str:
        return self.key.rpartition(":")[2].rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything lifted from one sglang.

    `roles` maps role to key, without absent roles. `defaults` has, per class, the literal starting
    values of attributes. `no_sums` says why `seq_lens_sum` cannot be replayed; it is None if it
    can.
    """

    name: str
    roles: dict[str, str]
    definitions: tuple[Definition, ...]
    defaults: dict[str, dict[str, str]]
    members: dict[str, tuple[str, ...]]  # class key -> keys of its lifted members
    no_sums: str | None = None

    @property
    def unknown(self) -> tuple[str, ...]:
        """The global names with unknown meaning, sorted. None of them is ever replaced silently."""
        return tuple(
            sorted(
                {
                    binding.name
                    for definition in self.definitions
                    for binding in definition.bindings
                    if binding.means is Means.UNKNOWN
                }
            )
        )

    @property
    def digest(self) -> str:
        """Equal for sources whose books are the same code, regardless of where in the file the code is."""
        parts = [
            self.roles,
            self.defaults,
            [
                (item.key, item.text, [asdict(b) for b in item.bindings])
                for item in self.definitions
            ],
            sys.version_info[
                :2
            ],  # the text is normalized by ast.unparse, which changes with Python
            *([self.no_sums] if self.no_sums else []),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def to_json(surface: Surface) -> str:
    return json.dumps(asdict(surface), separators=(",", ":"))


def from_json(text: str) -> Surface:
    raw: dict[str, Any] = json.loads(text)
    definitions = tuple(
        Definition(
            **{
                **item,
                "bindings": tuple(
                    Binding(b["name"], Means(b["means"]), b["value"]) for b in item["bindings"]
                ),
                "reads": tuple(item["reads"]),
            }
        )
        for item in raw.pop("definitions")
    )
    members = {key: tuple(value) for key, value in raw.pop("members").items()}
    return Surface(definitions=definitions, members=members, **raw)
