"""specdiff check: check one path against the laws that any correct books obey."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .inputs import each
from .main import BROKEN, DIFFERS, NO_VERDICT, SAME
from .parameters import Named
from .working import working


@click.command()
@click.argument("recording", nargs=-1, type=Named(readable=False))
@click.option(
    "--path",
    "text",
    default="observed",
    show_default=True,
    metavar="PATH",
    help="Path whose books to check, as in replay --old.",
)
@options.repo
@click.option(
    "--details",
    is_flag=True,
    help="For several recordings: list every law of each, and why a law was not exercised.",
)
@options.form_of(
    "jsonl",
    "jsonl: one JSON line per breach and nothing else; ranks are not compared.",
)
def check(recording: tuple[str, ...], text: str, repo: str | None, details: bool, form: str) -> int:
    """Check one path against the laws that correct books obey.

    RECORDING is a recording or a folder of recordings; the default is the bundled recordings. For several recordings,
    the report has one line per recording and the first breach of each law that a recording breaks; --details lists every
    law of each recording.

    Laws named in pyproject.toml ([tool.specdiff] silence) are shown but do not affect the exit code.

    Exit code: 1 if a law is broken or ranks that should agree do not, 125 if a recording exercises no law.
    """
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..recorders import hdf5
    from ..recorders.runs import Member, member_of, runs
    from ..replay import spec
    from ..replay.columns.shared import Columns
    from ..replay.expected import named
    from ..replay.explain import Toggles
    from ..replay.laws.check import check as check_laws
    from ..replay.laws.check import every_breach
    from ..replay.laws.law import LawOutcome, State
    from ..replay.lift.open import program_of
    from ..replay.rank_comparison import compare_all
    from ..replay.verdict import ledger_of
    from . import project_settings, report_breaches
    from .report_check import print_outcomes
    from .report_runs import print_ranks

    if form != "table":
        options.only_for("with --format table", "details")
    silenced = project_settings.load().silence
    (path,) = options.paths_of([text], repo)
    if isinstance(path, spec.Lifted):
        program_of(path)  # report missing source once, not for every recording
    found: list[tuple[Path, str, tuple[LawOutcome, ...]]] = []
    members: list[Member] = []

    def judge(file: Path) -> None:
        recording = hdf5.load(file)
        members.append(member_of(file, recording))
        columns = Columns(recording)
        ledger = ledger_of(columns, Toggles(columns), path)
        found.append((file, named(path, recording), check_laws(columns, ledger, silenced)))
        if form == "jsonl":
            for line in report_breaches.lines(file, every_breach(columns, ledger, silenced)):
                click.echo(line)

    with working("reading") as now:
        codes = each(recording, judge, now)
    if form == "table":
        print_outcomes(found, details=details)
    ranks = compare_all(runs(members), hdf5.load) if form == "table" else ()
    print_ranks(ranks)
    codes |= {DIFFERS} if any(one.differs for one in ranks) else set()
    for _, _, outcomes in found:
        if any(outcome.state is State.BROKEN for outcome in outcomes):
            codes.add(DIFFERS)
        elif not any(outcome.num_checked for outcome in outcomes):
            codes.add(NO_VERDICT)
    return next((code for code in (BROKEN, DIFFERS, NO_VERDICT) if code in codes), SAME)
