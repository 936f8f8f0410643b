"""specdiff replay: replay recorded events under two paths and report where their books differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..replay.quantity import Quantity
from . import options
from .inputs import each
from .main import BROKEN, DIFFERS, NO_VERDICT, SAME, USAGE, complain
from .parameters import Named
from .working import working

if TYPE_CHECKING:
    from .known_mismatches import JudgedRecording


@click.command()
@click.argument("recording", nargs=-1, type=Named(readable=False))
@options.old("Left path of the comparison.")
@options.fixed("Right path of the comparison.")
@options.quantities("Compare only this quantity; no verdict (125) if none of it was captured.")
@options.form
@options.repo
def replay(
    recording: tuple[str, ...],
    old: str,
    fixed: str,
    quantities: tuple[str, ...],
    form: str,
    repo: str | None,
) -> int:
    """Replay recordings under two paths and compare their books.

    RECORDING is a recording or a folder of recordings; the default is the bundled recordings.

    \b
    PATH is one of:
      observed          what the server computed
      old, fixed        none, or all, of the five fixes
      expected          the fixes that the recorded server should have: fixed,
                        or fixed-22651 from sglang 0.5.15 on
      old+23456         old with a fix added
      fixed-26126       fixed with a fix removed
      sglang==0.5.11    the functions of an sglang release
      sglang@REV        the functions of a commit (with --repo)
      sglang@installed  the functions of the installed sglang
      a folder          the functions of an sglang source tree

    Ranks that should agree are compared too, without effect on the exit code; `specdiff check` judges them. Known
    mismatches in pyproject.toml ([tool.specdiff] known) are reported but do not count as differences.
    """
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..recorders.runs import Member, member_of, runs
    from ..replay import spec
    from ..replay.lift.open import program_of
    from ..replay.lift.worker_pool import worker_pool_of
    from . import project_settings

    entries = project_settings.load().known
    left, right = options.paths_of((old, fixed), repo)
    wanted = [Quantity(name) for name in quantities] or None
    lifted = [path for path in (left, right) if isinstance(path, spec.Lifted)]
    for path in lifted:
        program_of(path)  # report missing source once, not for every recording
    results: list[JudgedRecording] = []
    members: list[Member] = []

    def judge(path: Path) -> None:
        with worker_pool_of(path, wanted or tuple(Quantity), lifted, len(lifted)) as workers:
            from ..recorders import hdf5
            from ..replay.columns.shared import Columns
            from ..replay.verdict import compare
            from . import known_mismatches

            found = hdf5.load(path)
            if workers is not None:
                workers.confirm()
            members.append(member_of(path, found))
            result = compare(Columns(found, workers), left, right, wanted, last=True)
            results.append(known_mismatches.judge_recording(entries, path, result))

    with working("reading") as now:
        codes = each(recording, judge, now)
    from ..recorders import hdf5
    from ..replay.rank_comparison import compare_all
    from ..replay.verdict import Verdict
    from . import report_json, report_replay, report_runs

    ranks = compare_all(runs(members), hdf5.load)
    if form == "json":
        report_json.print_results(results, ranks)
    else:
        report_replay.print_results(results)
        report_runs.print_ranks(ranks)
    code_of = {Verdict.DIFFERS: DIFFERS, Verdict.NO_VERDICT: NO_VERDICT, Verdict.SAME: SAME}
    codes |= {code_of[one.verdict(named=wanted is not None)] for one in results}
    complaints = [complaint for one in results for complaint in one.complaints]
    for complaint in complaints:
        complain(f"{complaint}.")
    codes |= {USAGE} if complaints else set()
    return next(code for code in (BROKEN, USAGE, DIFFERS, NO_VERDICT, SAME) if code in codes)
