"""Detect callers that pass an argument which a replay does not pass: a replay would then do less than sglang does."""

from __future__ import annotations

import ast

from .missing import CannotRunError
from .module import Modules
from .roles import Role
from .scan import calls_of, files, mentioning

# How many positional arguments the engine passes to each role's function, and the argument names it
# knows.
_PASSED = {
    Role.RESOLVE: 3,
    Role.PREPARE: 2,
    Role.PREPARE_DFLASH: 2,
    Role.PREPARE_NGRAM: 2,
    Role.EXPERTS: 2,
    Role.INDEXER: 2,
    Role.SEQ_LENS: 2,
    Role.FILTER: 1,
    Role.MERGE: 2,
    Role.RETRACT: 1,
    Role.MIX: 2,
    Role.TAIL_LENS: 2,
    Role.FINISH: 2,
    Role.COMMIT_LENGTH: 1,
    Role.RELEASE: 2,
}
_NAMED = frozenset(
    """
    checkpoint is_insert stream_ordered keep_indices reqs_to_exclude chunked_req_to_exclude v1_spec_info_filtered
    """.split()  # noqa: SIM905
)


def check_arguments(source: str, modules: Modules, roles: dict[str, str]) -> None:
    """Raise CannotRunError, naming the caller, if a caller of a role's function passes more than a replay does."""
    for role, passed in _PASSED.items():
        if place := roles.get(role.value):
            _check_calls(source, modules, place, passed)


def _check_calls(source: str, modules: Modules, key: str, passed: int) -> None:
    """Check the callers of one function.

    A new parameter has a default; a caller must not pass anything else for it.
    """
    node = modules.definition(key)
    if not isinstance(node, ast.FunctionDef):
        return
    name, is_method = node.name, "." in key.partition(":")[2]
    # `self` counts as one of a method's arguments
    known = passed if is_method or passed != 2 or key.endswith(":release_kv_cache") else 1
    defaults = _defaults_of(node)
    extra = {
        argument.arg: place
        for place, argument in enumerate(node.args.args)
        if place >= known and argument.arg not in _NAMED and argument.arg in defaults
    } | {
        argument.arg: 1 << 30
        for argument in node.args.kwonlyargs
        if argument.arg not in _NAMED and argument.arg in defaults
    }
    if not extra:
        return
    for path in files(modules):
        for where, function in mentioning(modules, path, {name}):
            for call in calls_of(function, name):
                given = {word.arg: word.value for word in call.keywords if word.arg}
                values = dict(zip(range(is_method, 99), call.args, strict=False))
                for argument, place in extra.items():
                    value = given.get(argument, values.get(place))
                    if value is not None and ast.dump(value) != ast.dump(defaults[argument]):
                        raise CannotRunError(
                            f"cannot run: {source} {path}:{call.lineno} {where} passes {argument}="
                            f"{ast.unparse(value)} to {name}, but a replay would use the default, "
                            f"{ast.unparse(defaults[argument])}. Pass the argument in replay/lift/, or, if no book depends on "
                            "it, list it in replay/lift/arguments.py."
                        )


def _defaults_of(node: ast.FunctionDef) -> dict[str, ast.expr]:
    """Return the default value of every parameter that has one."""
    arguments = node.args
    last = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    found = {name.arg: value for name, value in zip(last, arguments.defaults, strict=True)}
    for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if value is not None:
            found[name.arg] = value
    return found
