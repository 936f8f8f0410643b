"""The base class of all stand-ins, and the length that means "the recording does not say"."""

from __future__ import annotations

from typing import Any, NoReturn

from ..missing import Missing

# The length of a request whose start was not recorded. It stays recognizable after any sum,
# difference or rounding, so values that depend on it can be reported as not captured.
UNKNOWN_LEN = 1 << 60
LIMIT = 1 << 50


def known(value: int | None) -> bool:
    """Whether a value does not depend on `UNKNOWN_LEN`. None is known."""
    return value is None or -LIMIT < value < LIMIT


class _Kind(type):
    """Makes reading an undefined constant of a stand-in class stop the path, as for an instance."""

    what: str

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise Missing(f"{cls.what}.{name}")


class StandIn(metaclass=_Kind):
    """A replacement for an sglang object.

    It has only what the recording holds; reading anything else stops the path.
    """

    what = "object"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Missing(f"{self.what}.{name}")


class Quiet(StandIn):
    """Accepts and ignores any call (logging, metrics, locks).

    Using its value or truth stops the path.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Quiet(f"{self.what}.{name}")

    def __call__(self, *_: object, **__: object) -> Any:
        return Quiet(f"{self.what}()")

    def __getitem__(self, _: object) -> Any:
        return Quiet(f"{self.what}[...]")

    def __setitem__(self, *_: object) -> None: ...

    def _depend(self, *_: object) -> NoReturn:
        raise Missing(self.what, "depends on")

    __iter__ = __bool__ = __int__ = __index__ = __len__ = __contains__ = _depend
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _depend
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = (
        _depend
    )
    __hash__ = StandIn.__hash__


class Unknown(StandIn):
    """A global name with unknown meaning. It may be passed around; using it stops the path."""

    def __init__(self, name: str) -> None:
        self.what = f"the global {name}"

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise Missing(self.what, "calls")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Missing(self.what, "uses")

    def __bool__(self) -> bool:
        raise Missing(self.what, "tests")

    def _use(self, *_: object) -> NoReturn:
        raise Missing(self.what, "uses")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _use
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = (
        _use
    )
    __int__ = __index__ = __len__ = __iter__ = __getitem__ = __setitem__ = _use
    __hash__ = StandIn.__hash__

    def __mro_entries__(self, _: object) -> tuple[type, ...]:
        return ()


class Decorated(Unknown):
    """A function whose decorator cannot be run, so its behavior is unknown.

    Using it stops the path.
    """

    def __init__(self, decorator: str, name: str) -> None:
        self.what = f"the decorator {decorator} of {name}"
