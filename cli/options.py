"""Options that several commands have, so that they are called, and explained, the same everywhere."""

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
    help="The git clone that a path sglang@REV names a commit of.",
)


def form_of(other: str, says: str) -> Callable[[F], F]:
    """A table, or this other form."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["table", other]),
        default="table",
        show_default=True,
        help=says,
    )


form = form_of("json", "Output form.")
force = click.option("--force", is_flag=True, help="Overwrite the file if it exists.")


def paths_of(texts: Sequence[str], clone: str | None, option: str = "--repo") -> list[spec.Path]:
    """The paths that `texts` name. `clone`: what `option` gave. Raises UsageError, also where no path reads that clone."""
    from ..replay import spec

    found = [spec.parse(text, clone) for text in texts]
    if clone is not None and not any(_reads_clone(path) for path in found):
        raise UsageError(
            f"{option} {clone}: only a path sglang@REV reads a clone, and there is none among {', '.join(texts)}. "
            "Leave it out, or name a commit of it."
        )
    return found


def _reads_clone(path: spec.Path) -> bool:
    from ..replay import spec

    return isinstance(path, spec.Lifted) and path.origin is spec.Origin.REVISION


def end(path: spec.Path) -> spec.Lifted:
    """Of a line of versions, which others lie on. Raises UsageError for a path that lies on none."""
    from ..replay import spec

    on_a_line = (spec.Origin.RELEASE, spec.Origin.REVISION)
    if isinstance(path, spec.Lifted) and path.origin in on_a_line:
        return path
    raise UsageError(
        f"{path} is neither a release nor a commit: expected sglang==VERSION, or sglang@REV with --repo PATH."
    )


def only_for(what: str, *names: str) -> None:
    """Raises UsageError where one of these parameters was given, in a mode that is not `what`, which alone uses them."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        if parameter.name in names and given:
            raise UsageError(f"{parameter.opts[0]} is for {what} only. Leave it out here.")


def quantities(says: str) -> Callable[[F], F]:
    """Any number of them, by name; one that is named twice counts once."""
    return click.option(
        "--quantity",
        "quantities",
        multiple=True,
        type=click.Choice([quantity.value for quantity in Quantity]),
        callback=lambda _context, _option, names: tuple(dict.fromkeys(names)),
        help=f"{says} May be repeated.",
    )


def old(says: str) -> Callable[[F], F]:
    return click.option("--old", default="old", show_default=True, metavar="PATH", help=says)


def fixed(says: str) -> Callable[[F], F]:
    return click.option("--fixed", default="fixed", show_default=True, metavar="PATH", help=says)


def output(says: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        type=Named(path_type=Path, dir_okay=False),
        help=says,
    )
