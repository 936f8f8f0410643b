"""`specdiff record`: sglang's real scheduler of several releases, recorded as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from children import SPECDIFF, VERSIONS, python, rig, specdiff, wait_for
from specdiff.fixtures.rig.releases import RELEASES, find_release
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.redact import redacted
from specdiff.recorders.schema import NONE32, NONE64, Kind, Mode

pytestmark = pytest.mark.live


def record(directory: Path, command: list[str]) -> tuple[Recording, str]:
    """The one recording of a command that ends well, and what was said on stderr."""
    done = specdiff("record", "-o", directory, "--", *command)
    assert done.returncode == 0, done.stderr
    (path,) = done.stdout.split()
    assert [entry.name for entry in directory.iterdir()] == [Path(path).name]
    return hdf5.load(Path(path)), done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_is_recorded_whole_and_behaves_as_without_us(
    version: str, tmp_path: Path
) -> None:
    command = rig(version, "random", "--seed", "1")
    plain, recorded = tmp_path / "plain", tmp_path / "recorded"
    subprocess.run([*command, "--events", plain], check=True, capture_output=True)
    recording, said = record(tmp_path / "out", [*command, "--events", str(recorded)])
    assert recorded.read_text() == plain.read_text()
    assert "200 requests" in said and "0 dropped" in said

    run, stats = recording.run, recording.stats
    assert (run.sglang_version, run.books) == (version, version)
    assert run.spec_v2 and run.overlap and run.experts_capturer
    assert [site.name for site in run.sites if site.essential and not site.attached] == []
    assert all(site.ast_hash for site in run.sites if site.attached)
    assert stats is not None
    assert (stats.exceptions, stats.first_exception, stats.dropped) == (0, None, 0)
    assert stats.closed and stats.events == len(recording.events.kind)
    assert recording.damage is None
    check_pairing(recording)
    check_values(recording)
    check_output_lens(recording)


def check_pairing(recording: Recording) -> None:
    """Every launch is answered once, in order, by the requests it launched."""
    launches, results = recording.launches, recording.results
    assert results.launch.tolist() == launches.launch.tolist()
    assert results.mode.tolist() == launches.mode.tolist()
    assert recording.result_rows.qid.tolist() == recording.launch_rows.qid.tolist()
    assert set(launches.mode.tolist()) == {Mode.EXTEND, Mode.DECODE}


def check_values(recording: Recording) -> None:
    """What holds in every era, bugs included."""
    rows, decode = recording.result_rows, recording.results.mode == Mode.DECODE
    of_decode = np.repeat(decode, recording.results.num_rows)
    assert (rows.accept_len[of_decode] >= 1).all()
    assert (rows.num_emitted[of_decode] == rows.accept_len[of_decode]).all()  # no grammar here
    assert (rows.accept_len[~of_decode] == NONE32).all()
    stale = (rows.finished == 1) | (rows.is_retracted == 1)
    assert stale[of_decode].sum() > 20
    live = of_decode & ~stale
    grown = rows.committed_after[live] - rows.committed_before[live]
    assert set((rows.accept_len[live] - grown).tolist()) <= {0, 1}  # 1: a slot claimed before
    assert (recording.results.stride[decode] == (4 if has_stride(recording) else NONE64)).all()
    assert (recording.results.num_tokens[decode] == 4 * recording.results.num_rows[decode]).all()
    prepares = recording.prepares
    true = prepares.device_sum != NONE64
    assert true.all()  # a CPU server
    finishes = recording.finishes
    asked = finishes.experts_state == 1
    assert asked.sum() > 50
    assert (finishes.experts_stored[asked] == finishes.experts_rows[asked]).all()
    assert (finishes.experts_start[asked] >= 0).all()
    assert recording.experts.dtype == np.uint8
    kinds = {Kind(kind) for kind in np.unique(recording.events.kind)}
    assert kinds == set(Kind) - {Kind.GAP}
    assert len(set(recording.rids)) == len(recording.rids) == 200


def check_output_lens(recording: Recording) -> None:
    """Every live result starts where the one before it, for that request, left off."""
    rows, expected = recording.result_rows, dict.fromkeys(range(len(recording.rids)), 0)
    for i, qid in enumerate(rows.qid.tolist()):
        if rows.finished[i] or rows.is_retracted[i]:
            continue
        assert rows.output_len[i] == expected[qid]
        emitted = rows.num_emitted[i]
        expected[qid] += 1 if emitted == NONE32 else int(emitted)
    finishes = recording.finishes
    for qid, output_len in zip(finishes.qid.tolist(), finishes.output_len.tolist(), strict=True):
        assert output_len == expected[qid]


def has_stride(recording: Recording) -> bool:
    return RELEASES.index(recording.run.sglang_version) >= RELEASES.index("0.5.12")


def test_indexer_rows_are_recorded_with_their_finish(tmp_path: Path) -> None:
    recording, _ = record(tmp_path / "out", rig("0.5.13", "indexer-topk"))
    finishes = recording.finishes
    assert (finishes.indexer_state == 1).all()
    assert (finishes.indexer_stored == finishes.indexer_rows).all()
    assert len(recording.indexer) == finishes.indexer_rows.sum() > 0
    assert recording.run.indexer_capturer


def test_prompts_are_not_recorded(tmp_path: Path) -> None:
    recording, _ = record(tmp_path / "out", rig("0.5.13", "stale-stop"))
    assert not any("input_ids" in detail for detail in recording.details)
    assert all('"origin_len"' in detail for detail in recording.details)


# -- nothing recorded: which of the reasons, and the exit status


def not_recorded(command: list[str], directory: Path, status: int = 125) -> str:
    done = specdiff("record", "-o", directory, "--", *command)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert list(directory.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize("flag", ["-I", "-S", "-E"])
def test_python_that_ignores_us(flag: str, tmp_path: Path) -> None:
    said = not_recorded([sys.executable, flag, "-c", "pass"], tmp_path)
    assert "no process loaded sglang's scheduler with the recorder in it" in said


@pytest.mark.parametrize(("status", "expected"), [(0, 125), (1, 1), (3, 3)])
def test_command_without_sglang_keeps_its_own_status(
    status: int, expected: int, tmp_path: Path
) -> None:
    not_recorded([sys.executable, "-c", f"raise SystemExit({status})"], tmp_path, expected)


def test_command_that_cannot_start_is_a_usage_error(tmp_path: Path) -> None:
    done = specdiff("record", "-o", tmp_path, "--", "/nowhere")
    assert (done.returncode, done.stdout) == (129, "")
    assert "cannot start /nowhere: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("version", "switch", "reason"),
    [
        (
            "0.5.10",
            "--no-spec-v2",
            "this sglang runs spec v1 unless SGLANG_ENABLE_SPEC_V2=1 is set",
        ),
        ("0.5.12", "--disable-overlap", "overlap scheduling is off, so this sglang runs spec v1"),
    ],
)
def test_server_without_spec_v2_says_so(
    version: str, switch: str, reason: str, tmp_path: Path
) -> None:
    done = specdiff("record", "-o", tmp_path, "--", *rig(version, "stale-stop", switch))
    assert done.stdout == ""
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


IMPORT_ONLY = """
import importlib, sys
from specdiff.fixtures.rig.releases import find_release
from specdiff.fixtures.rig.postimport import install_patches
from specdiff.fixtures.rig.stubs import install_stubs
from specdiff.fixtures.rig.worker import WorkerScript
from specdiff.fixtures.rig.workarounds import workarounds
sys.path.insert(0, str(find_release(sys.argv[1]).root))
install_stubs()
install_patches(workarounds(WorkerScript({}, False, False)))
"""


def test_scheduler_module_without_a_scheduler(tmp_path: Path) -> None:
    find_release("0.5.13")
    script = IMPORT_ONLY + "import sglang.srt.managers.scheduler"
    said = not_recorded([sys.executable, "-c", script, "0.5.13"], tmp_path)
    assert "but no Scheduler was made" in said


def test_fork_that_lacks_an_essential_site_is_named(tmp_path: Path) -> None:
    find_release("0.5.13")
    script = IMPORT_ONLY + (
        "import sglang.srt.managers.schedule_batch as m\n"
        "m.ScheduleBatch.renamed = m.ScheduleBatch.filter_batch\n"
        "del m.ScheduleBatch.filter_batch\n"
        "import sglang.srt.managers.scheduler\n"
    )
    said = not_recorded([sys.executable, "-c", script, "0.5.13"], tmp_path)
    assert "sglang 0.5.13 has no site for 'filter'" in said
    assert "sglang.srt.managers.schedule_batch:ScheduleBatch.filter_batch" in said


def test_changed_books_are_unknown_and_recorded_all_the_same(tmp_path: Path) -> None:
    """A fork or a later release: another resolve function, the same sites."""
    root = find_release("0.5.13").root
    tree = tmp_path / "tree" / "sglang"
    (tmp_path / "tree").mkdir()
    subprocess.run(["cp", "-r", str(root / "sglang"), str(tree)], check=True)
    processor = tree / "srt/managers/scheduler_components/batch_result_processor.py"
    text = processor.read_text()
    changed = text.replace("accept_lens[i] - 1\n", "accept_lens[i] - 1 + 0\n", 1)
    assert changed != text
    processor.write_text(changed)
    (tmp_path / "cache" / "sglang").mkdir(parents=True)
    (tmp_path / "cache" / "sglang" / "0.5.13").symlink_to(tmp_path / "tree")
    command = ["env", f"SPECDIFF_CACHE={tmp_path / 'cache'}", *rig("0.5.13", "stale-stop")]
    recording, _ = record(tmp_path / "out", command)
    assert recording.run.books == "unknown"
    assert len(recording.events.kind) > 0


# -- where the scheduler lives


SPAWNED = """
import multiprocessing, os, signal, sys, time
from specdiff.fixtures.rig.__main__ import main
def serve(version):
    try:
        main(["--sglang", version, "--scenario", "stale-stop"], standalone_mode=False)
    finally:
        time.sleep(0.2)  # the writer wakes every 50 ms
        os.kill(os.getpid(), signal.SIGKILL)  # as sglang ends its schedulers
if __name__ == "__main__":
    import time
    process = multiprocessing.get_context(sys.argv[2]).Process(target=serve, args=(sys.argv[1],))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_scheduler_in_a_process_of_its_own_that_is_killed(method: str, tmp_path: Path) -> None:
    find_release("0.5.13")
    script = tmp_path / "serve.py"
    script.write_text(SPAWNED)
    recording, _ = record(tmp_path / "out", [sys.executable, str(script), "0.5.13", method])
    assert len(recording.rids) == 8
    assert recording.run.command[-1] == method


def test_launcher_that_ends_before_its_scheduler_has_begun(tmp_path: Path) -> None:
    command = " ".join(rig("0.5.13", "stale-stop"))
    recording, said = record(tmp_path / "out", ["sh", "-c", f"{command} & exit 0"])
    assert "waiting for" in said
    assert len(recording.rids) == 8


# -- both ways in


BOTH = (
    IMPORT_ONLY
    + """
from specdiff.recorders.capture.plugin import register
import os
register()
import sglang.srt.managers.scheduler as module
from sglang.srt.plugins import load_plugins
load_plugins()
register()
depth, function = 0, module.Scheduler.run_batch
while hasattr(function, "__wrapped__"):
    depth, function = depth + 1, function.__wrapped__
print("depth", depth)
"""
)


def test_plugin_route_alone_attaches(tmp_path: Path) -> None:
    find_release("0.5.13")
    done = python(BOTH, "0.5.13", env={"SPECDIFF_RECORD_DIR": str(tmp_path)})
    assert done.stdout.strip() == "depth 1", done.stderr
    assert len(list(tmp_path.glob("*.attach.json"))) == 1


def test_both_routes_attach_once(tmp_path: Path) -> None:
    find_release("0.5.13")
    done = specdiff("record", "-o", tmp_path, "--", sys.executable, "-c", BOTH, "0.5.13")
    assert done.stdout.strip() == "depth 1", done.stderr


def test_plugin_is_inert_without_a_recording() -> None:
    find_release("0.5.13")
    assert python(BOTH, "0.5.13").stdout.strip() == "depth 0"


# -- ends that are no ends


def test_killed_server_leaves_a_recording(tmp_path: Path) -> None:
    command = rig("0.5.13", "random", "--requests", "3000")
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(tmp_path), "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        journal = wait_for_journal(tmp_path)
        os.kill(int(journal.name.split("-")[-2]), signal.SIGKILL)
        output, _ = parent.communicate(timeout=120)
    assert parent.returncode == 128 + signal.SIGKILL
    recording = hdf5.load(Path(output.strip()))
    assert len(recording.results.launch) > 10
    assert recording.stats is None or not recording.stats.closed


def test_killed_parent_leaves_a_running_server_and_a_recoverable_journal(tmp_path: Path) -> None:
    command = rig("0.5.13", "random", "--requests", "1500")
    out, done = tmp_path / "out", tmp_path / "done"
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(out), "--", *command, "--events", str(done)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as parent:
        wait_for_journal(out)
        parent.kill()
        parent.wait()
    early = specdiff("recover", out)
    assert (early.returncode, early.stdout) == (0, "")
    assert "a process still writes to it" in early.stderr
    wait_for(done.exists, "the server to go on to its end", 120)
    wait_for(lambda: specdiff("recover", out).stdout, "the journal to be let go of")
    (path,) = out.iterdir()
    recording = hdf5.load(path)
    assert len(recording.rids) == 1500
    check_pairing(recording)


def wait_for_journal(directory: Path) -> Path:
    def grown() -> list[Path]:
        if not directory.is_dir():
            return []
        return [path for path in directory.glob("*.journal") if path.stat().st_size > 50_000]

    wait_for(grown, "the journal to grow")
    return grown()[0]


# -- what else can go wrong around the command


LINGERS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(Path(sys.argv[1]).write_text("terminated")))
Path(sys.argv[1]).write_text("ready")
time.sleep(60)
"""


def test_sigterm_reaches_those_who_outlive_the_command(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = ["sh", "-c", '"$@" & exit 3', "sh", sys.executable, "-c", LINGERS, str(seen)]
    with subprocess.Popen(
        [*SPECDIFF, "record", "-o", str(tmp_path / "out"), "--", *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stderr is not None
        assert "waiting for" in parent.stderr.readline()
        wait_for(lambda: seen.exists() and seen.read_text() == "ready", "the child")
        parent.terminate()
        _, said = parent.communicate(timeout=30)
    assert parent.returncode == 3
    assert seen.read_text() == "terminated"
    assert "SIGTERM is passed on to" in said


def test_folder_that_goes_away_does_not_cost_the_status(tmp_path: Path) -> None:
    done = specdiff(
        "record", "-o", tmp_path / "out", "--", "sh", "-c", f"rmdir {tmp_path}/out; exit 7"
    )
    assert done.returncode == 7
    assert "cannot be listed" in done.stderr and "Traceback" not in done.stderr


def test_misspelt_option_is_named(tmp_path: Path) -> None:
    done = specdiff("record", "--ouptut", tmp_path, "--", "true")
    assert done.returncode == 129
    assert "--ouptut" in done.stderr and "Missing option" not in done.stderr


def test_secrets_reach_the_command_but_not_the_disk(tmp_path: Path) -> None:
    recording, _ = record(
        tmp_path / "out",
        ["env", "HF_TOKEN=hf-1", *rig("0.5.13", "stale-stop")],
    )
    assert recording.run.command[:2] == ("env", "HF_TOKEN=***")


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        (["--api-key", "sk-1", "x"], ["--api-key", "***", "x"]),
        (["--api-key=sk-1"], ["--api-key=***"]),
        (["--Admin_Password", "-x"], ["--Admin_Password", "***"]),
        (["--hf-token", "--other", "v"], ["--hf-token", "--other", "v"]),
        (
            ["sh", "-c", "serve --api-key sk-1 --port 1"],
            ["sh", "-c", "serve --api-key *** --port 1"],
        ),
        (["--client-secret=a=b"], ["--client-secret=***"]),
        (["--speculative-num-draft-tokens", "4"], ["--speculative-num-draft-tokens", "4"]),
        (["--tokenizer-path", "p"], ["--tokenizer-path", "p"]),
        (["--model", "m"], ["--model", "m"]),
    ],
)
def test_secrets_are_hidden_in_the_recorded_command(
    command: list[str], recorded: list[str]
) -> None:
    assert redacted(command) == tuple(recorded)
