"""Secrets on a command line: they reach the command, never the recording (`pseudonyms` takes out the rest)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_HIDDEN = "***"
# A tokenizer is no secret.
_SECRET = r"[\w.-]*(?:key|secret|passw|token(?!iz))[\w.-]*"
_OPTION = re.compile(rf"-{{1,2}}{_SECRET}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(-{{0,2}}{_SECRET})=(.*)", re.IGNORECASE | re.DOTALL)
# An argument may be a script: there a value is assigned to an option or a variable, or stands behind an option.
_IN_A_SCRIPT = re.compile(
    rf"""(?<![\w.-]) (?:
        (?P<assigned> -{{0,2}}{_SECRET} )\+?=
      | (?P<option> -{{1,2}}{_SECRET} ) \\?['"]? (?:\s|\\\n)+ (?!--)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_COMMAND = r"""\$\((?:[^()'"]|\((?:[^()'"]|\([^()'"]*\))*\))*\)"""
_REST = r"\$\(.*"  # of the script: where such a command ends is not plain any more
_DOUBLE = rf'(?:\\.|[^"\\$]|\$(?!\()|{_COMMAND})*'
_WORD = rf"""(?:
    \$'(?:\\.|[^'\\])*'
  | '[^']*'
  | "{_DOUBLE}(?:"|{_REST})
  | \\(?P<quote>['"])(?:(?!\\(?P=quote)).)*\\(?P=quote)  # quoted in a script within the script
  | {_COMMAND} | {_REST} | \$\{{[^}}]*\}} | `[^`]*`
  | \\.
  | (?![;&|]+(?:\s|\Z))[^\s\\]  # a quote that is not closed again is the script's own
)*"""
# What a shell takes for one word, by the quote that was opened before the name: "--api-key=sk 1", and no less than that.
_WORDS = {
    quote: re.compile(opened + _WORD, re.DOTALL | re.VERBOSE)
    for quote, opened in {"": "", "'": r"[^']*'?", '"': rf'{_DOUBLE}(?:"|{_REST})?'}.items()
}


def without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """`command` with `***` for the value of every option and variable named after a key, token, secret or password."""
    hidden, before = [], ""
    for argument in command:
        if _OPTION.fullmatch(before) and not argument.startswith("--"):
            hidden.append(_HIDDEN if _is_secret(before, argument) else argument)
        elif match := _ASSIGNED.fullmatch(argument):
            hidden.append(f"{match[1]}={_HIDDEN}" if _is_secret(*match.groups()) else argument)
        else:
            hidden.append(_hidden_in(argument))
        before = argument
    return tuple(hidden)


def _hidden_in(script: str) -> str:
    """Every value is hidden whole, wherever another one seems to end: whose quotes are whose is not always plain."""
    made, end = "", 0
    for start, stop in _values(script):
        if start >= end:
            made += script[end:start] + _HIDDEN
        end = max(end, stop)
    return made + script[end:]


def _values(script: str) -> Iterator[tuple[int, int]]:
    for match in _IN_A_SCRIPT.finditer(script):
        quote = script[: match.start()][-1:] if match["assigned"] else ""
        value = _WORDS.get(quote, _WORDS[""]).match(script, match.end())
        if value and value[0] and _is_secret(match["assigned"] or match["option"], value[0]):
            yield value.span()


def _is_secret(name: str, value: str) -> bool:
    """A number of tokens (`--speculative-num-draft-tokens 4`) is none."""
    return not (name.lower().endswith("tokens") and value.strip("'\"").isdecimal())
