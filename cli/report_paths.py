"""The accounting paths as tables: built-in ones, fixes, releases in the cache, and one lifted path in detail."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from ..replay.lift.catalog import Explained, Known
from ..replay.paths.fixes import FIXES
from .console import Output

_BUILT_IN = (
    ("observed", "what the server itself computed"),
    ("old", "none of the five fixes"),
    ("fixed", "all five"),
    ("old+N, fixed-N", "fixes added and removed"),
    ("sglang==VERSION", "the functions of a release, read out of its wheel"),
    ("sglang@REV", "of a commit, tag or branch of a git clone (--repo)"),
    ("sglang@installed", "of the sglang in this environment"),
    ("a folder", "of an sglang source tree"),
)
_SHOWN_READS = 12


def print_paths(releases: Iterable[Known], num_recordings: int) -> None:
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
    titles = [f"{name}: equal" for name in algorithms] or ["equal"]
    made = console.table("release in the cache", "books", *titles)
    for known in cached:
        equals = [known.equals.get(name, "-") for name in algorithms]
        said = equals if known.error is None else [known.error]
        made.add_row(f"sglang=={known.version}", known.digest or "-", *said)
    if made.row_count:
        console.print(made)
        console.print(
            f"equal over {num_recordings} recordings, each algorithm's apart; those that a release cannot run left out"
        )
    else:
        console.print("no release in the cache: name one, as in --old sglang==0.5.12")


def print_explained(path: Explained) -> None:
    console = Output()
    console.print(Text.assemble((path.name, "bold"), f"  books {path.digest}"))
    made = console.table("role", "found at", "line", "reads", right=(2,))
    for found in path.found:
        reads = ", ".join(found.reads[:_SHOWN_READS])
        more = (
            f", and {len(found.reads) - _SHOWN_READS} more"
            if len(found.reads) > _SHOWN_READS
            else ""
        )
        line = "" if found.line is None else str(found.line)
        made.add_row(found.role.value, found.place or "not in this sglang", line, reads + more)
    console.print(made)
    console.print()
    console.print(f"lifted with them: {', '.join(path.followed) or 'nothing'}")
    console.print(f"global names without a stand-in: {', '.join(path.unknown) or 'none'}")
