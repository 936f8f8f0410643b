"""specdiff shrink: reduce a recording, or a scenario, to the fewest requests that still show a divergence or breach."""

from __future__ import annotations

from pathlib import Path

import click

from ..recorders.errors import UsageError
from ..replay.quantity import Quantity
from . import options
from .inputs import check_is_recording, check_output, write_text
from .main import INTERRUPTED, SAME
from .parameters import Named
from .working import working


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@options.output("File to write: a recording (*.h5), or with --law a scenario (*.toml).")
@options.old("Left path of the comparison.")
@options.fixed("Right path of the comparison.")
@options.quantity(
    "Keep the first divergence of this quantity; default: the first quantity that differs."
)
@click.option(
    "--law",
    metavar="NAME",
    help="Keep the first breach of this law instead, as found by `specdiff check`.",
)
@click.option(
    "--path",
    metavar="PATH",
    help="With --law: path whose books to check; default: observed. With -o *.toml: the sglang that plays; default: the recorded one.",
)
@options.repo
@click.option(
    "--keep-tokens",
    is_flag=True,
    help="Keep output tokens, request ids and the command line, which are replaced by default.",
)
@options.force
def shrink(
    recording: Path,
    output: Path,
    old: str,
    fixed: str,
    quantity: str | None,
    law: str | None,
    path: str | None,
    repo: str | None,
    keep_tokens: bool,
    force: bool,
) -> int:
    """Shrink a recording to what still shows a divergence.

    Removes requests, then steps, until no more can be removed. The result still shows the first divergence of a quantity,
    in the same branch of the books and explained by the same fixes. With --law, it still shows the first breach of that
    law: at the same kind of event, in the same counted value, and on the same side of the allowed range. All values that
    remain are as recorded. Ctrl-C stops early and keeps the best result so far.

    With -o *.toml, the recording (or another scenario) is shrunk to a scenario by playing it: the whole scheduler of an
    sglang plays smaller and smaller parts, about ten seconds each. The result is the fewest requests, aborts, pauses and
    the like with which it breaks the law.

    Exit code: 125 if the paths do not differ, or the law is not broken.
    """
    if law is None:
        options.only_for("with --law", "path")
    else:
        options.only_for("without --law", "old", "fixed", "quantity")
    check_output(output, force=force, source=recording)
    if output.suffix.lower() == ".toml" != output.suffix:
        raise UsageError(f"-o {output}: the name of a scenario must end in .toml (lower case).")
    if output.suffix == ".toml":
        options.only_for("with -o *.h5", "keep_tokens")
        return _to_scenario(recording, output, law, path, repo)
    check_is_recording(output)
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..replay.shrink.shrink import shrink_to_breach, shrink_to_divergence
    from .inputs import one, save
    from .report_shrink import ShrinkReporter, print_shrunk

    compared = options.paths_of((old, fixed) if law is None else (path or "observed",), repo)
    wanted = None if quantity is None else Quantity(quantity)
    source, digest = one(recording)
    with ShrinkReporter() as tell:
        if law is not None:
            shrunk = shrink_to_breach(
                source, digest, compared[0], law, tell, keep_tokens=keep_tokens
            )
        else:
            sides = compared[0], compared[1]
            shrunk = shrink_to_divergence(
                source, digest, sides, wanted, tell, keep_tokens=keep_tokens
            )
    save(shrunk.recording, output, force=force)
    print_shrunk(shrunk, output)
    return INTERRUPTED if shrunk.interrupted else SAME


def _to_scenario(
    source: Path, output: Path, law: str | None, path: str | None, repo: str | None
) -> int:
    if law is None:
        raise UsageError(
            f"-o {output}: shrinking to a scenario needs a law to keep broken. Name it with --law NAME."
        )
    from ..fixtures.rig.shrink_scenario import shrink_scenario, trials_of
    from ..replay.laws.check_one import law_of
    from .law_plays import ended_by_signals
    from .report_shrink_scenario import ScenarioShrinkReporter, print_shrunk, scenario_file
    from .scenario_input import check_packages, player, read

    wanted = law_of(law)
    scenario, release = read(source)
    sglang = player(source, release, path, repo)
    check_packages()
    doing = f"{sglang} plays"
    with ended_by_signals(), trials_of(sglang, wanted) as trials, working(doing) as now:
        shrunk = shrink_scenario(scenario, trials, ScenarioShrinkReporter(now, doing))
    write_text(output, scenario_file(shrunk, source, sglang, output))
    print_shrunk(shrunk, sglang, output)
    return INTERRUPTED if shrunk.interrupted else SAME
