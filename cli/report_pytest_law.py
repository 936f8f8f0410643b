"""A law that was broken as a small test file: it asks an sglang of somebody's choice to play what happened again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..recorders.errors import NoVerdictError
from ..recorders.recording import Recording
from ..replay.laws.law import Law, Outcome, State
from ..replay.lift.releases import RELEASES
from .report_check import in_words
from .report_pytest import PULL, located, quiet, quoted, wrapped


def test_file(
    law: Law, happened: tuple[Recording, Outcome] | None, scenario: Path, output: Path
) -> str:
    """The text of a test in `output` over the scenario in that file; `happened`: where that is a recording, and what came of
    the law there. Raises NoVerdictError where it was not broken."""
    if happened is not None and happened[1].state is not State.BROKEN:
        why = happened[1].idle or f"{happened[1].num_checked} places checked"
        raise NoVerdictError(f"nothing to test: the law {law.name} is not broken there ({why}).")
    release = RELEASES[-1]
    if happened is not None and happened[0].run.sglang_version in RELEASES:
        release = happened[0].run.sglang_version
    lines = [
        f'"""The law {quiet(law.name)}: {quiet(law.statement)}.',
        "",
        *_paragraphs(law, happened, scenario, quiet(output.name), release),
        '"""',
        "",
        "import os",
        "from pathlib import Path",
        "",
        "from specdiff.replay.played import outcome",
        "",
        f"SCENARIO = {located(scenario, output)}",
        "# Whose whole scheduler plays it again, on this CPU: a release, or a folder with an sglang source tree.",
        f'SGLANG = os.environ.get("SGLANG", "sglang=={release}")',
        "",
        "",
        f"def test_{law.name.replace('-', '_')}():",
        f"    found = outcome(SCENARIO, SGLANG, {quoted(law.name)})",
        "    assert found.num_checked > 0, found.idle",
        '    where = f"{found.num_broken} of {found.num_checked} places, first: {found.first}"',
        '    assert found.state.value != "broken", where',
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(
    law: Law,
    happened: tuple[Recording, Outcome] | None,
    scenario: Path,
    name: str,
    release: str,
) -> Iterator[str]:
    yield from (f"{PULL}/{number}" for number in law.related)
    if happened is not None:
        recording, outcome = happened
        assert outcome.first is not None
        yield from wrapped(
            f"What happened to sglang {recording.run.sglang_version} is in {scenario.name}. Broken there in "
            f"{outcome.num_broken} of {outcome.num_checked} places, first: {in_words(law, outcome.first)}."
        )
    yield ""
    yield f"    SGLANG=sglang=={release} pytest {name}    a release"
    yield f"    SGLANG=path/to/sglang pytest {name}    a source tree"
