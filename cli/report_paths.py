"""The accounting paths as tables: built-in paths, fixes, cached releases, and the details of one lifted path."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from ..replay.lift.catalog import CachedRelease, Explained
from ..replay.paths.fixes import FIXES
from .console import Output

_BUILT_IN = (
    ("observed", "what the server itself computed"),
    ("old", "none of the five fixes"),
    ("fixed", "all five fixes"),
    (
        "expected",
        "the fixes that the recorded server should have: fixed, or fixed-22651 from 0.5.15 on",
    ),
    ("old+N, fixed-N", "a fix added or removed"),
    ("sglang==VERSION", "the functions of a release, read from its wheel"),
    ("sglang@REV", "the functions of a commit, tag or branch in a git clone (--repo)"),
    ("sglang@installed", "the functions of the sglang in this environment"),
    ("a folder", "the functions of an sglang source tree"),
)
_SHOWN_READS = 12


def print_paths(releases: Iterable[CachedRelease], num_recordings: int) -> None:
    console = Output()
    built_in = console.table("path", "books")
    for name, meaning in _BUILT_IN:
        built_in.add_row(name, meaning)
    console.print(built_in)
    console.print()
    fixes = console.table("fix", "", "first release")
    for fix in FIXES:
        fixes.add_row(f"#{fix.number}", fix.title, fix.since)
    console.print(fixes)
    console.print()
    cached = list(releases)
    algorithms = dict.fromkeys(name for known in cached for name in known.equals)
    titles = [f"equal to ({name})" for name in algorithms] or ["equal to"]
    table = console.table("cached release", "books", *titles)
    for known in cached:
        equals = [known.equals.get(name, "-") for name in algorithms]
        if known.error is not None:
            equals = ["cannot run", *equals[1:]]
        table.add_row(f"sglang=={known.version}", known.digest or "-", *equals)
    if table.row_count:
        console.print(table)
        for known in cached:
            if known.error is not None:
                console.print(f"sglang=={known.version} {known.error}")
        console.print(
            f"Equality was tested on {num_recordings} recordings, separately for each algorithm, except those that a release cannot run."
        )
    else:
        console.print(
            "No release in the cache. To fetch one, name it: `specdiff replay --old sglang==0.5.12`."
        )


def print_explained(path: Explained) -> None:
    console = Output()
    console.print(Text.assemble((path.name, "bold"), f"  books {path.digest}"))
    table = console.table("role", "found at", "line", "reads", right=(2,))
    for found in path.found:
        reads = ", ".join(found.reads[:_SHOWN_READS])
        more = (
            f", and {len(found.reads) - _SHOWN_READS} more"
            if len(found.reads) > _SHOWN_READS
            else ""
        )
        line = "" if found.line is None else str(found.line)
        table.add_row(found.role.value, found.place or "not in this sglang", line, reads + more)
    console.print(table)
    console.print()
    console.print(f"also lifted: {', '.join(path.followed) or 'nothing'}")
    console.print(f"global names without a stand-in: {', '.join(path.unknown) or 'none'}")
