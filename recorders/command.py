"""Secrets on a command line: they reach the command, never the recording (`pseudonyms` takes out the rest)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HIDDEN = "***"
# A tokenizer is no secret.
_SECRET = r"[\w.-]*(?:key|secret|passw|token(?!iz))[\w.-]*"
_OPTION = re.compile(rf"-{{1,2}}{_SECRET}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(-{{0,2}}{_SECRET})=(.*)", re.IGNORECASE | re.DOTALL)
_IN_A_SCRIPT = re.compile(rf"(?<![\w-])(--{_SECRET})(=|\s+)(?!--)(\S+)", re.IGNORECASE)


def without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """`command` with `***` for the value of every option named after a key, token, secret or password."""
    hidden, before = [], ""
    for argument in command:
        if _OPTION.fullmatch(before) and not argument.startswith("--"):
            hidden.append(_value(before, argument))
        elif match := _ASSIGNED.fullmatch(argument):
            hidden.append(f"{match[1]}={_value(match[1], match[2])}")
        else:
            hidden.append(_IN_A_SCRIPT.sub(_in_a_script, argument))
        before = argument
    return tuple(hidden)


def _in_a_script(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{_value(match[1], match[3])}"


def _value(name: str, value: str) -> str:
    """A number of tokens (`--speculative-num-draft-tokens 4`) is no secret either."""
    counts = name.lower().endswith("tokens") and value.isdecimal()
    return value if counts else _HIDDEN
