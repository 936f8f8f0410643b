"""specdiff reconcile: what clients were told against the recorded books, request by request."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import DIFFERS, NO_VERDICT, SAME
from .parameters import Named
from .working import working


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@click.argument("responses", type=Named(path_type=Path, readable=False))
@click.option(
    "--complete",
    is_flag=True,
    help="A response without its request, or a request that ended without its response, is a difference too.",
)
@options.form
def reconcile(recording: Path, responses: Path, complete: bool, form: str) -> int:
    """Hold what clients were told against what RECORDING says of their requests.

    RESPONSES has one JSON object a line, as sglang's /generate or its OpenAI endpoints returned it, or a list of them
    (a batch). They are matched by request id. Finish reason, token counts, output ids, counters, versions of weights,
    log probabilities, hidden states and top-k rows are compared, and the rows against what an RL trainer relies on. Exit
    code 1 where something differs, 125 where nothing could be compared.
    """
    from ..replay.reconcile import read
    from ..replay.reconcile.reconcile import reconcile as hold
    from ..replay.verdict import Verdict
    from . import report_reconcile
    from .inputs import one

    with working(f"{recording}, {responses}"):
        held, _ = one(recording)
        found = hold(held, read.load(responses))
    report = report_reconcile.print_json if form == "json" else report_reconcile.print_table
    report(recording, responses, found, complete=complete)
    verdict = found.verdict(complete=complete)
    return {Verdict.DIFFERS: DIFFERS, Verdict.NO_VERDICT: NO_VERDICT, Verdict.SAME: SAME}[verdict]
