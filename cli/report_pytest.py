"""Write a regression as a small pytest file."""

from __future__ import annotations

import json
import os
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ..recorders.errors import printable
from ..replay.paths.fixes import FIXES
from ..replay.quantity import Quantity
from ..replay.regression import Regression
from ..replay.spec import Lifted, Origin
from .report_replay import where

PULL = "https://github.com/sgl-project/sglang/pull"
_ERA = (
    "Depending on the release, raw lengths include slots that a prepare claims ahead of the result. Only books that "
    "claim slots as {path} does compute these values."
)


def test_file(found: Regression, recording: Path, output: Path) -> str:
    """Return the text of a test file `output` that replays `recording`."""
    quantity = found.quantity.value
    place, right = _literal(found.key)[1:-1], _literal(found.expected[found.key])
    repo = _needs_repo(found)
    call = f'values(RECORDING, SGLANG, "{quantity}"{", REPO" if repo else ""})'
    lines = [
        f'"""{_headline(found)}',
        "",
        *_paragraphs(found, recording, output),
        '"""',
        "",
        "import os",
        "from pathlib import Path",
        "",
        "from specdiff.replay.values import values",
        "",
        f"RECORDING = {located(recording, output)}",
        "# The books to test: a release, a folder with an sglang source tree, or specdiff's own old or fixed.",
        f'SGLANG = os.environ.get("SGLANG", {quoted(str(found.new))})',
    ]
    if repo:
        lines.append('REPO = os.environ.get("SGLANG_REPO")  # git clone for sglang@REV')
    lines += [
        "",
        f"# {quantity} as {found.new} computes it: (event, request, when) -> value.",
        "EXPECTED = {",
        *(f"    {_literal(key)}: {_literal(value)}," for key, value in found.expected.items()),
        "}",
        "",
        "",
        "def test_where_it_went_wrong():",
        f"    computed = {call}",
        f"    assert computed[{place}] == {right}  # {found.old}: {_literal(found.was)}",
        "",
        "",
        "def test_every_value():",
        f"    computed = {call}",
        "    assert {at: computed[at] for at in EXPECTED} == EXPECTED",
    ]
    return "\n".join(lines) + "\n"


def _headline(found: Regression) -> str:
    if not found.fixes:
        return f"{found.quantity.value}: {found.old} against {found.new}."
    titles = {fix.number: fix.title for fix in FIXES}
    return "; ".join(f"sglang #{number}: {titles[number]}" for number in sorted(found.fixes)) + "."


def _paragraphs(found: Regression, recording: Path, output: Path) -> Iterator[str]:
    run, first = found.recording.run, found.first
    wrong = "1 value is" if found.num_wrong == 1 else f"{found.num_wrong} values are"
    yield from (f"{PULL}/{number}" for number in sorted(found.fixes))
    yield from wrapped(
        f"{recording.name} records the scheduler of sglang {run.sglang_version}. "
        f"The test computes {found.quantity.value} from it. "
        f"First divergence, {found.old} -> {found.new}: {where(first)}. "
        f"{first.cause[0].upper()}{first.cause[1:]}. In total, {wrong} wrong under {found.old}"
        f"{_unexplained(found)}.{_of_server(found)}"
    )
    if found.quantity is Quantity.KV_COMMITTED_LEN:
        yield from wrapped(_ERA.format(path=found.new))
    yield ""
    command = run_by(output)
    yield f"    SGLANG=sglang==0.5.12 {command}    a release"
    yield f"    SGLANG=path/to/sglang {command}    a source tree"
    if _needs_repo(found):
        yield f"    SGLANG=sglang@main SGLANG_REPO=path/to/sglang {command}    a commit"


def _unexplained(found: Regression) -> str:
    if not found.num_unexplained:
        return ""
    return f"; none of the five fixes explains {found.num_unexplained} of them"


def _of_server(found: Regression) -> str:
    """Say which side the recorded server agrees with: the values may be wrong only on a path that it never took."""
    side = {"old": found.old, "fixed": found.new, None: None}[found.first.recorded_as]
    return f" At the first divergence, the recorded server agrees with {side}." if side else ""


def wrapped(text: str) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(quiet(text), 100, break_long_words=False, break_on_hyphens=False)


def run_by(output: Path) -> str:
    """The command that runs the test, for a docstring."""
    return f"pytest {quiet(shlex.quote(output.name))}"


def quiet(text: str) -> str:
    """Escape `text` for use in a docstring."""
    return printable(text).replace("\\", "\\\\").replace('"""', "'''")


def _needs_repo(found: Regression) -> bool:
    return any(
        isinstance(path, Lifted) and path.origin is Origin.REVISION
        for path in (found.old, found.new)
    )


def located(recording: Path, output: Path) -> str:
    """The expression that locates the recording from the test.

    It keeps a symbolic link's own name: the link can be redirected, and a copy of the folder contains it.
    """
    folder, beside = recording.parent.resolve(), output.parent.resolve()
    if folder == beside:
        return f"Path(__file__).with_name({quoted(recording.name)})"
    return f"Path(__file__).parent / {quoted(os.path.join(os.path.relpath(folder, beside), recording.name))}"


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    """A string literal. Surrogates (bytes of a file name that are not text in this locale) are escaped, as UTF-8 cannot
    store them."""
    return json.dumps(text, ensure_ascii=False).encode(errors="backslashreplace").decode()
