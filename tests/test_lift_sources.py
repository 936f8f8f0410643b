"""Lifting from source trees, from releases with one line changed, and from sources that cannot be lifted."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from lifting import Changed, bundled_recording, compiled, files_of, lifted, release, write_tree
from specdiff.cli.inputs import bundled
from specdiff.cli.main import NO_VERDICT, run
from specdiff.replay.lift.allowed_names import STAND_INS
from specdiff.replay.lift.engine import replay
from specdiff.replay.lift.lifting import lift
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.missing import CannotRunError
from specdiff.replay.lift.open import surface_of
from specdiff.replay.lift.source import open_dir
from specdiff.replay.lift.standins.globals import stand_ins
from specdiff.replay.lift.standins.scheduler import Capturer
from specdiff.replay.lift.standins.server_args import ServerArgs

RECORDING = str(bundled() / "0.5.23-random.h5")


PROCESSOR = "srt/managers/scheduler_components/batch_result_processor.py"


@pytest.mark.parametrize("below", ["", "python", "python/sglang"])
def test_a_source_tree_is_found_from_its_root_python_or_sglang_folder(
    below: str, tmp_path: Path
) -> None:
    write_tree(tmp_path, files_of("0.5.12"))
    surface = lift(open_dir(tmp_path / below))
    assert surface.digest == surface_of(lifted("sglang==0.5.12")).digest


def test_an_sglang_from_before_spec_v2_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a tree has no resolve function and no prepare."""
    files = {
        path: text
        for path, text in files_of("0.5.10").items()
        if "output_processor" not in path and "speculative" not in path
    }
    tree = write_tree(tmp_path, files)
    assert run(["replay", RECORDING, "--old", str(tree)]) == NO_VERDICT
    assert "no resolve and no prepare" in capsys.readouterr().err


def test_code_that_reads_what_a_recording_does_not_hold_is_refused() -> None:
    with release("0.5.23") as source:
        for body, says in (
            ("req.waited_for", "resolve reads req.waited_for, which recordings of format"),
            ("result.temperature", "resolve reads result.temperature"),
            ("getattr(self, 'budget', 0)", "resolve reads self.budget"),
            ("torch.rand", "resolve reads torch.rand"),
            ("open('/etc/passwd')", "resolve calls the global open"),
            ("eval('1')", "resolve calls the global eval"),
        ):
            changed = Changed(
                source,
                PROCESSOR,
                "_resolve_spec_v2_tokens",
                "req.spec_verify_ct += 1",
                f"req.spec_verify_ct += bool({body})",
            )
            with pytest.raises(CannotRunError, match="cannot run") as raised:
                replay(Program(lift(changed)), bundled_recording("0.5.23-random"))
            assert says in str(raised.value)


def test_unknown_globals_are_listed() -> None:
    with release("0.5.23") as source:
        changed = Changed(
            source,
            PROCESSOR,
            "_resolve_spec_v2_tokens",
            "predict_tokens = []",
            "predict_tokens = []; somewhere.else_()",
        )
        assert "somewhere" in lift(changed).unknown


def test_the_digest_changes_only_with_code_that_computes() -> None:
    """Comments, annotations, blank lines and spaces do not change it."""
    with release("0.5.23") as source:
        plain = lift(source).digest
        name = "_resolve_spec_v2_tokens"
        for old, new, same in (
            ("predict_tokens = []", "predict_tokens: list = []  # tokens\n\n", True),
            ("predict_tokens = []", "predict_tokens = [ ]", True),
            ("req.spec_verify_ct += 1", "req.spec_verify_ct += 2", False),
        ):
            digest = lift(Changed(source, PROCESSOR, name, old, new)).digest
            assert (digest == plain) == same, new


def test_the_lifted_engine_does_not_import_torch() -> None:
    code = "import sys, specdiff.replay.lift.engine, specdiff.replay.lift.lifting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_source_file_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    files = files_of("0.5.12")
    broken = "srt/speculative/eagle_info_v2.py"
    tree = write_tree(tmp_path, files)
    for contents in (b"def prepare_for_decode(:", b"\xff\xfe", b"x = '\0'"):
        (tree / "python" / "sglang" / broken).write_bytes(contents)
        with pytest.raises(CannotRunError, match=broken):
            lift(open_dir(tree))


def test_there_is_a_stand_in_for_every_listed_global() -> None:
    server_args = ServerArgs(bundled_recording("0.5.23-random").run)
    assert stand_ins(server_args, Capturer()).keys() == STAND_INS


def test_a_replay_leaves_the_garbage_collector_as_it_was() -> None:
    """This one fails in the middle."""
    with release("0.5.23") as source:
        made = compiled(
            Changed(
                source,
                "srt/managers/schedule_batch.py",
                "reset_for_retract",
                "self.retraction_count += 1",
                "self.nobody_knows_it += 1",
            )
        )
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(CannotRunError, match="nobody_knows_it"):
                replay(made, bundled_recording("0.5.23-random"))
            assert gc.isenabled() is enabled
        finally:
            gc.enable()
