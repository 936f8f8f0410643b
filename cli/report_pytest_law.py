"""A law that was broken as a small test file: it asks an sglang of somebody's choice to play what happened again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..recorders.errors import NoVerdictError
from ..replay.laws.law import Law, Outcome, State
from ..replay.lift.releases import RELEASES
from .report_check import in_words
from .report_pytest import PULL, located, quiet, quoted, run_by, wrapped


def require_broken(law: Law, outcome: Outcome, where: str) -> None:
    """Raises NoVerdictError: what has never failed is no test."""
    if outcome.state is not State.BROKEN:
        why = outcome.idle or f"{outcome.num_checked} places checked"
        raise NoVerdictError(f"nothing to test: the law {law.name} is not broken {where} ({why}).")


def test_file(
    law: Law, played_by: str, outcome: Outcome, scenario: Path, output: Path, release: str | None
) -> str:
    """The text of a test in `output` over what is in that file, a recording or a scenario; `outcome`: how the law is broken where
    that sglang plays it; `release`: of those that the rig plays, the one that the test asks, else the newest."""
    default = release or RELEASES[-1]
    lines = [
        f'"""The law {quiet(law.name)}: {quiet(law.statement)}.',
        "",
        *_paragraphs(law, played_by, outcome, scenario),
        f"    SGLANG=sglang=={default} {run_by(output)}    a release",
        f"    SGLANG=path/to/sglang {run_by(output)}    a source tree",
        '"""',
        "",
        "import os",
        "from pathlib import Path",
        "",
        "from specdiff.replay.played import outcome",
        "",
        f"SCENARIO = {located(scenario, output)}",
        "# Whose whole scheduler plays it again, on this CPU: a release, or a folder with an sglang source tree.",
        f'SGLANG = os.environ.get("SGLANG", "sglang=={default}")',
        "",
        "",
        f"def test_{law.name.replace('-', '_')}():",
        f"    found = outcome(SCENARIO, SGLANG, {quoted(law.name)})",
        "    assert found.num_checked > 0, found.idle",
        '    where = f"{found.num_broken} of {found.num_checked} places, first: {found.first}"',
        '    assert found.state.value != "broken", where',
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(law: Law, played_by: str, outcome: Outcome, scenario: Path) -> Iterator[str]:
    yield from (f"{PULL}/{number}" for number in law.related)
    assert outcome.first is not None
    again = "" if scenario.suffix == ".toml" else " again"
    yield from wrapped(
        f"{scenario.name}, as {played_by} plays it{again}. Broken there in {outcome.num_broken} of {outcome.num_checked} places, first: "
        f"{in_words(outcome.first)}."
    )
    yield ""
