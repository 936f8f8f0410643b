"""Options that several commands have, so that they are called, and explained, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..replay.quantity import Quantity

F = TypeVar("F", bound=Callable[..., Any])

repo = click.option(
    "--repo", metavar="PATH", help="The git clone that a path sglang@REV names a commit of."
)
form = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output form.",
)
force = click.option("--force", is_flag=True, help="Overwrite the file if it exists.")


def quantities(says: str) -> Callable[[F], F]:
    """Any number of them, by name."""
    return click.option(
        "--quantity",
        "quantities",
        multiple=True,
        type=click.Choice([quantity.value for quantity in Quantity]),
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
        type=click.Path(path_type=Path, dir_okay=False),
        help=says,
    )
