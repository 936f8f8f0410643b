"""specdiff export: write a divergence as a test, a recording as a scenario, or its books as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..recorders.errors import RecordingError, UsageError
from ..replay.quantity import Quantity
from . import options
from .inputs import check_output, write_text
from .parameters import Named
from .working import working

if TYPE_CHECKING:
    from ..replay.laws.law import LawOutcome
    from ..replay.spec import Lifted

_PATHS = ("observed", "old", "fixed")


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["pytest", "scenario", "jsonl", "parquet"]),
    required=True,
    help="pytest: a test of a divergence; scenario: a scenario to play again; jsonl: one JSON object per line; parquet: needs pyarrow.",
)
@options.output("File to write.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATH",
    help=f"Tables: path whose books to write; default: {', '.join(_PATHS)}. May be repeated. With --law: the sglang that plays "
    "the recording to find the breach.",
)
@options.old("pytest: the path with the wrong books.")
@options.fixed("pytest: the path with the right books.")
@options.quantities("Write only this quantity. pytest takes one; default: the first that differs.")
@click.option(
    "--law",
    metavar="NAME",
    help="pytest: test this law instead of a divergence. RECORDING can then also be a scenario (*.toml).",
)
@options.repo
@options.force
def export(
    recording: Path,
    form: str,
    output: Path,
    paths: tuple[str, ...],
    old: str,
    fixed: str,
    quantities: tuple[str, ...],
    law: str | None,
    repo: str | None,
    force: bool,
) -> None:
    """Export a recording as a test, a scenario or a table.

    pytest: a test that fails with the books of --old and passes with those of --fixed. Export it from a recording made by
    `specdiff shrink`, and keep the two together. With --law, the test checks a law instead, while the whole scheduler of
    an sglang plays the recording again.

    scenario: a TOML file that sglang's real scheduler, of this release or another, plays again on a CPU.

    jsonl, parquet: a table with one row for each place where a quantity has a value. Its columns are event, step, kind,
    moment, rid, quantity, part and, for each path, the value and whether it was captured. A captured null is sglang's
    None; a null that was not captured means that there is no value.
    """
    if recording.is_dir():
        raise UsageError(f"{recording} is a folder. Name one recording in it (*.h5).")
    if form in ("pytest", "scenario") and law is None:
        options.only_for("with --format jsonl or parquet, or with --law", "paths")
    if form != "pytest":
        options.only_for("with --format pytest", "old", "fixed", "law")
    elif law is not None:
        options.only_for("without --law", "old", "fixed", "quantities")
    if form == "pytest" and output.suffix != ".py":
        raise UsageError(f"-o {output}: the name of a test must end in .py.")
    if form == "scenario":
        options.only_for("with other formats", "quantities", "repo")
        if output.suffix != ".toml":
            raise UsageError(f"-o {output}: the name of a scenario must end in .toml.")
    check_output(output, force=force, source=recording)
    if law is not None:
        _export_law_test(recording, output, law, paths, repo)
        return
    if form == "pytest":
        _export_test(recording, output, (old, fixed), quantities, repo)
        return
    if form == "scenario":
        _export_scenario(recording, output)
        return
    # imported late: the engine imports torch, and `--help` must not wait for it
    from ..recorders import hdf5
    from . import report_jsonl, report_parquet

    write = {"jsonl": report_jsonl.write, "parquet": report_parquet.write}[form]
    if form == "parquet":
        report_parquet.check_installed()
    from ..replay.flat import flat

    chosen = list(dict.fromkeys(options.paths_of(paths or _PATHS, repo)))
    wanted = [Quantity(name) for name in quantities] or list(Quantity)
    with working(f"{recording}"):
        loaded = hdf5.load(recording)
        tables = flat(loaded, chosen, wanted)
        try:
            write(loaded, tables, output)
        except OSError as error:
            raise RecordingError(f"{output}: cannot be written ({error}).") from error
    click.echo(str(output))


def _export_test(
    recording: Path,
    output: Path,
    paths: tuple[str, str],
    quantities: tuple[str, ...],
    repo: str | None,
) -> None:
    from ..replay.regression import regression
    from .inputs import one
    from .report_pytest import test_file

    if len(quantities) > 1:
        raise UsageError(
            "--format pytest: give at most one --quantity, because a test is about one divergence."
        )
    old, new = options.paths_of(paths, repo)
    wanted = Quantity(quantities[0]) if quantities else None
    found = regression(one(recording)[0], old, new, wanted)
    _write(output, test_file(found, recording, output))


def _export_law_test(
    source: Path, output: Path, law: str, paths: tuple[str, ...], repo: str | None
) -> None:
    from ..replay.laws.check_one import check_law, law_of
    from ..replay.lift.releases import RELEASES
    from ..replay.spec import Observed, Origin
    from .inputs import one
    from .report_pytest_law import require_broken, test_file
    from .scenario_input import player, read

    wanted = law_of(law)
    if len(paths) > 1:
        raise UsageError(
            "--law: give at most one --path, because a single sglang plays the recording."
        )
    _, release = read(source)
    if source.suffix == ".h5":
        require_broken(wanted, check_law(wanted, one(source)[0], Observed()), "in this recording")
    sglang = player(source, release, paths[0] if paths else None, repo)
    found = _played(source, sglang, law, repo)
    require_broken(wanted, found, f"when {sglang} plays it")
    named = sglang.where if sglang.origin is Origin.RELEASE else None
    known = named if named in RELEASES else None
    _write(output, test_file(wanted, str(sglang), found, source, output, known))


def _played(scenario: Path, sglang: Lifted, law: str, repo: str | None) -> LawOutcome:
    from ..replay.played import outcome
    from .law_plays import ended_by_signals
    from .scenario_input import check_packages

    check_packages()
    with ended_by_signals(), working(f"{sglang} plays"):
        return outcome(scenario, str(sglang), law, repo)


def _export_scenario(recording: Path, output: Path) -> None:
    from .inputs import one
    from .report_scenario import scenario_file

    _write(output, scenario_file(one(recording)[0], recording, output))


def _write(output: Path, text: str) -> None:
    write_text(output, text)
    click.echo(str(output))
