"""The command line as the recording keeps it: without secrets, and not too long.

The command itself still gets everything. `pseudonyms` removes the command line altogether.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence

_HIDDEN = "***"
# The command reaches the server in an environment variable, as JSON. The kernel limits a variable
# to 128 KiB, and all of them, together with the arguments, to a quarter of the stack's size.
_LONGEST = 32 << 10
# "tokenizer" contains "token" but is not a secret.
_SECRET = r"[\w.-]*(?:key|secret|passw|token(?!iz))[\w.-]*"
_OPTION = re.compile(rf"-{{1,2}}{_SECRET}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(-{{0,2}}{_SECRET})=(.*)", re.IGNORECASE | re.DOTALL)
# An argument may be a whole script. In it, a value is either assigned to an option or a variable
# (`--api-key=X`, `TOKEN=X`), or it follows an option (`--api-key X`).
_IN_A_SCRIPT = re.compile(
    rf"""(?<![\w.-]) (?:
        (?P<assigned> -{{0,2}}{_SECRET} )\+?=
      | (?P<option> -{{1,2}}{_SECRET} ) \\?['"]? (?:\s|\\\n)+ (?!--)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_COMMAND = r"""\$\((?:[^()'"]|\((?:[^()'"]|\([^()'"]*\))*\))*\)"""
_REST = r"\$\(.*"  # rest of the script, if the end of such a command cannot be determined
_DOUBLE = rf'(?:\\.|[^"\\$]|\$(?!\()|{_COMMAND})*'
_WORD = rf"""(?:
    \$'(?:\\.|[^'\\])*'
  | '[^']*'
  | "{_DOUBLE}(?:"|{_REST})
  | \\(?P<quote>['"])(?:(?!\\(?P=quote)).)*\\(?P=quote)  # quoted in a script within the script
  | {_COMMAND} | {_REST} | \$\{{[^}}]*\}} | `[^`]*`
  | \\.
  | (?![;&|]+(?:\s|\Z))[^\s\\]  # an unclosed quote belongs to the script around it
)*"""
# Matches what a shell takes as one word, or more than that, never less. The key is the quote that
# was opened before the name, as in "--api-key=sk 1".
_WORDS = {
    quote: re.compile(opened + _WORD, re.DOTALL | re.VERBOSE)
    for quote, opened in {"": "", "'": r"[^']*'?", '"': rf'{_DOUBLE}(?:"|{_REST})?'}.items()
}


def without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """Return `command` with `***` as the value of every option and variable whose name contains
    key, token, secret or passw."""
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


def shortened(command: Sequence[str]) -> tuple[str, ...]:
    """Return as many of the first arguments as a recording keeps. If some are left out, the last one
    says how many bytes."""
    kept, size = 0, 0
    for argument in command:
        size += len(json.dumps(argument)) + 2  # and the comma
        if size > _LONGEST:
            break
        kept += 1
    left_out = [os.fsencode(argument) for argument in command[kept:]]
    more = (f"... ({sum(map(len, left_out)):,} more bytes)",) if left_out else ()
    return (*command[:kept], *more)


def _hidden_in(script: str) -> str:
    """Hide every secret value in a script. If two values overlap, everything up to the later end
    is hidden, because it is not always clear which quotes belong together."""
    shown, end = "", 0
    for start, stop in _values(script):
        if start >= end:
            shown += script[end:start] + _HIDDEN
        end = max(end, stop)
    return shown + script[end:]


def _values(script: str) -> Iterator[tuple[int, int]]:
    for match in _IN_A_SCRIPT.finditer(script):
        quote = script[: match.start()][-1:] if match["assigned"] else ""
        value = _WORDS.get(quote, _WORDS[""]).match(script, match.end())
        if value and value[0] and _is_secret(match["assigned"] or match["option"], value[0]):
            yield value.span()


def _is_secret(name: str, value: str) -> bool:
    """Whether the value is a secret; a number of tokens (`--speculative-num-draft-tokens 4`) is not."""
    return not (name.lower().endswith("tokens") and value.strip("'\"").isdecimal())
