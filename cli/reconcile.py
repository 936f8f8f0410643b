"""specdiff reconcile: compare what clients received with the recording, request by request."""

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
    help="Also count responses without a recorded request, and ended requests without a response, as differences.",
)
@options.form
def reconcile(recording: Path, responses: Path, complete: bool, form: str) -> int:
    """Compare what clients received with what was recorded.

    RESPONSES is a file with one JSON value per line: a response as returned by sglang's /generate or its OpenAI
    endpoints, or a list of responses (a batch). Responses are matched to recorded requests by request id.

    Compared are the finish reason, token counts, output ids, counters, weight versions, log probabilities, hidden states
    and top-k rows. The number of rows is also checked against the number that an RL trainer relies on.

    Exit code: 1 if something differs, 125 if nothing could be compared.
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
