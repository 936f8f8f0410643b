"""Stand-ins for a one-dimensional integer tensor on the CPU and for the few torch functions that make one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..missing import Missing
from .base import UNKNOWN_LEN, Quiet, StandIn


class Scalar(int):
    """A zero-dimensional tensor."""

    def item(self) -> int:
        return int(self)


class Vector(StandIn):
    """A 1-d integer tensor with the operations that books use on lengths and indices, and no others."""

    what = "tensor"
    is_cpu = True
    device, dtype = "cpu", "int64"

    def __init__(self, values: Iterable[int]) -> None:
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Scalar]:
        return map(Scalar, self.values)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, (Vector, list)):
            return Vector(self.values[int(i)] for i in at)
        if isinstance(at, slice):
            return Vector(self.values[at])
        return Scalar(self.values[int(at)])

    def __setitem__(self, at: int | slice, value: Any) -> None:
        if isinstance(at, slice):
            self.values[at] = Vector(value).values
        else:
            self.values[at] = int(value)

    def copy_(self, other: Vector, **_: object) -> None:
        self.values[:] = other.values

    def is_pinned(self) -> bool:
        return False

    def __add__(self, other: Any) -> Vector:
        if isinstance(other, Vector):
            return Vector(a + b for a, b in zip(self.values, other.values, strict=True))
        return Vector(a + other for a in self.values)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.values),)

    def tolist(self) -> list[int]:
        return list(self.values)

    def sum(self) -> Scalar:
        return Scalar(sum(self.values))

    def max(self) -> Scalar:
        return Scalar(max(self.values))

    def numel(self) -> int:
        return len(self.values)

    def cpu(self) -> Vector:
        return Vector(self.values)

    def clone(self) -> Vector:
        return Vector(self.values)

    def to(self, *_: object, **__: object) -> Vector:
        return Vector(self.values)

    def long(self) -> Vector:
        return self


class Torch(StandIn):
    """The module `torch`, as far as books need it for lengths and indices."""

    what = "torch"
    int32, int64, bool = "int32", "int64", "bool"

    def tensor(self, values: Iterable[int], **_: object) -> Vector:
        return Vector(values)

    def empty(self, shape: tuple[int, ...], **_: object) -> Vector:
        if len(tuple(shape)) != 1:
            raise Missing("torch.empty with more than one dimension", "calls")
        return Vector([UNKNOWN_LEN] * shape[0])  # uninitialized memory

    def cat(self, parts: Sequence[Vector | Quiet], **_: object) -> Any:
        if any(isinstance(part, Quiet) for part in parts):
            return Quiet("torch.cat()")
        return Vector(value for part in parts for value in part.values)
