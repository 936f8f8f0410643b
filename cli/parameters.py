"""Parameter types with their own syntax."""

from __future__ import annotations

import re
from typing import Any

import click

_EMPTY = "the name is empty. Is a shell variable unset?"


class Prefix(click.ParamType[str]):
    """The start of a name. An empty value, as from an unset shell variable, is refused: it would match every name."""

    name = "PREFIX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "":
            self.fail(_EMPTY, param, ctx)
        return str(value)


class Named(click.Path):
    """A file or folder name. An empty value, as from an unset shell variable, is refused: it would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail(_EMPTY, param, ctx)
        return super().convert(value, param, ctx)


class OneIn(click.ParamType[int]):
    """`1/N`. The value is the number N."""

    name = "1/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        head, _, count = str(value).partition("/")
        if isinstance(value, int):
            return value
        if head != "1" or not count.isdecimal() or int(count) < 1:
            self.fail(f"{value!r}: expected 1/N, such as 1/16", param, ctx)
        return int(count)


_UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """`90`, `90s`, `5m` or `1h`. The value is in seconds."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        unit = _UNITS.get(text[-1:], 0)
        try:
            seconds = float(text[:-1] if unit else text) * (unit or 1)
        except ValueError:
            seconds = 0
        if not 0 < seconds < float("inf"):
            self.fail(f"{text!r}: expected a duration, such as 90, 90s, 5m or 1h", param, ctx)
        return seconds


class RunId(click.ParamType[str]):
    """A run id. It starts with a letter, so that it never equals one that specdiff generates (those start with a digit)."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", str(value)):
            self.fail(
                f"{value!r}: expected a letter, followed by letters, digits and _", param, ctx
            )
        return str(value)
