"""Options shared by several commands, so that names and help texts are the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..recorders.errors import UsageError
from ..replay.quantity import Quantity
from .parameters import Named

if TYPE_CHECKING:
    from ..replay import spec

F = TypeVar("F", bound=Callable[..., Any])

repo = click.option(
    "--repo",
    metavar="PATH",
    type=Named(readable=False),
    help="Git clone that contains the REV of sglang@REV.",
)


def form_of(other: str, says: str) -> Callable[[F], F]:
    """A --format option that offers a table and one `other` format."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["table", other]),
        default="table",
        show_default=True,
        help=says,
    )


form = form_of("json", "Output format.")
force = click.option("--force", is_flag=True, help="Overwrite the file if it exists.")


def paths_of(texts: Sequence[str], clone: str | None, option: str = "--repo") -> list[spec.Path]:
    """Parse `texts` as paths. `clone` is the value of `option`.

    Raises UsageError if a text is not a path, or if a clone was given and no path reads it.
    """
    from ..replay import spec

    found = [spec.parse(text, clone) for text in texts]
    if clone is not None and not any(_reads_clone(path) for path in found):
        raise UsageError(
            f"{option} {clone}: only a path sglang@REV reads a clone, and {', '.join(texts)} "
            f"{'is' if len(texts) == 1 else 'are'} not of that form. Remove the option, or name a commit."
        )
    return found


def _reads_clone(path: spec.Path) -> bool:
    from ..replay import spec

    return isinstance(path, spec.Lifted) and path.origin is spec.Origin.REVISION


def end(path: spec.Path) -> spec.Lifted:
    """Return `path` if it can be the end of a range of versions. Raises UsageError if it is not a release or a commit."""
    from ..replay import spec

    on_a_line = (spec.Origin.RELEASE, spec.Origin.REVISION)
    if isinstance(path, spec.Lifted) and path.origin in on_a_line:
        return path
    raise UsageError(
        f"{path} is neither a release nor a commit. Use sglang==VERSION, or sglang@REV with --repo PATH."
    )


def only_for(what: str, *names: str) -> None:
    """Raises UsageError if one of these parameters was given. `what` says when they can be used, such as "with --law"."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        if parameter.name in names and given:
            raise UsageError(f"{parameter.opts[0]} can only be used {what}. Remove it.")


_QUANTITIES = [quantity.value for quantity in Quantity]


def quantity(says: str) -> Callable[[F], F]:
    """A --quantity option for one quantity, or None."""
    return click.option(
        "--quantity",
        type=click.Choice(_QUANTITIES),
        metavar="QUANTITY",
        help=f"{says} One of {', '.join(_QUANTITIES)}.",
    )


def quantities(says: str) -> Callable[[F], F]:
    """A --quantity option that can be repeated. Duplicates count once."""
    return click.option(
        "--quantity",
        "quantities",
        multiple=True,
        type=click.Choice(_QUANTITIES),
        metavar="QUANTITY",
        callback=lambda _context, _option, names: tuple(dict.fromkeys(names)),
        help=f"{says} May be repeated. One of {', '.join(_QUANTITIES)}.",
    )


def old(says: str) -> Callable[[F], F]:
    return click.option("--old", default="old", show_default=True, metavar="PATH", help=says)


def fixed(says: str) -> Callable[[F], F]:
    return click.option("--fixed", default="expected", show_default=True, metavar="PATH", help=says)


def output(says: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        type=Named(path_type=Path, dir_okay=False),
        help=says,
    )
