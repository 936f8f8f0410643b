"""Write a broken law as a small pytest file, in which an sglang of the user's choice plays the scenario again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..recorders.errors import NoVerdictError
from ..replay.laws.law import Law, LawOutcome, State
from ..replay.lift.releases import RELEASES
from .report_check import in_words
from .report_pytest import PULL, located, quiet, quoted, run_by, wrapped


def require_broken(law: Law, outcome: LawOutcome, where: str) -> None:
    """Raises NoVerdictError if the law is not broken, because the test would never have failed."""
    if outcome.state is not State.BROKEN:
        why = outcome.why_not_exercised or f"{outcome.num_checked} places checked"
        raise NoVerdictError(f"nothing to test: the law {law.name} is not broken {where} ({why}).")


def test_file(
    law: Law, played_by: str, outcome: LawOutcome, scenario: Path, output: Path, release: str | None
) -> str:
    """Return the text of a test file `output` that plays `scenario`, a recording or a scenario.

    `outcome`: how the law is broken when `played_by` plays it. `release`: the release that the test uses by default; None
    for the newest one that the rig plays.
    """
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
        "# The sglang whose whole scheduler plays it again on this CPU: a release, or a folder with a source tree.",
        f'SGLANG = os.environ.get("SGLANG", "sglang=={default}")',
        "",
        "",
        f"def test_{law.name.replace('-', '_')}():",
        f"    found = outcome(SCENARIO, SGLANG, {quoted(law.name)})",
        "    assert found.num_checked > 0, found.why_not_exercised",
        '    where = f"{found.num_broken} of {found.num_checked} places, first: {found.first}"',
        '    assert found.state.value != "broken", where',
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(law: Law, played_by: str, outcome: LawOutcome, scenario: Path) -> Iterator[str]:
    yield from (f"{PULL}/{number}" for number in law.related)
    assert outcome.first is not None
    again = "" if scenario.suffix == ".toml" else " again"
    yield from wrapped(
        f"When {played_by} plays {scenario.name}{again}, the law is broken in {outcome.num_broken} of {outcome.num_checked} "
        f"places. First breach: {in_words(outcome.first)}."
    )
    yield ""
