"""The parts of `make gpu-capture` that can be tested without a GPU.

sglang's own classes read what it passes to them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from children import EVERYTHING, IMPORT_ONLY, python, rig, specdiff, wait_for
from specdiff import recorders
from specdiff.cli.inputs import bundled
from specdiff.fixtures.gpu import device
from specdiff.fixtures.gpu.capture import Captured, capture, free_port
from specdiff.fixtures.gpu.client_requests import GenerateRequest, client_requests
from specdiff.fixtures.gpu.clients import ClientAnswers
from specdiff.fixtures.gpu.device import Host, host_of
from specdiff.fixtures.gpu.errors import GpuError
from specdiff.fixtures.gpu.kernels import STUB, with_kernels
from specdiff.fixtures.gpu.models import DENSE, EOS_TOKENS, MODELS, MOE
from specdiff.fixtures.gpu.outcome import keep_all, report_and_check
from specdiff.fixtures.gpu.pack import kernels, requirements
from specdiff.fixtures.gpu.progress import progress
from specdiff.fixtures.gpu.report import check_fidelity, matrix, overhead
from specdiff.fixtures.gpu.server import command, flags, settings, supported_settings
from specdiff.fixtures.gpu.toolkit import with_toolkit
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders import hdf5, record
from specdiff.replay.exercised import exercised
from specdiff.replay.lift.open import program_of
from specdiff.replay.spec import Lifted, Origin

NEWEST = "0.5.23"


def gpu(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    module = [sys.executable, "-m", "specdiff.fixtures.gpu", *arguments]
    return subprocess.run(
        module, capture_output=True, text=True, check=False, env={**os.environ, **env}
    )


def test_without_a_device_the_capture_is_skipped_with_exit_code_0(tmp_path: Path) -> None:
    done = gpu("capture", "--output", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"gpu-capture: skipped, {sys.executable} has no CUDA device (torch ")
    assert not (tmp_path / "out").exists()


def test_a_python_that_does_not_exist_is_a_failure() -> None:
    done = gpu("capture", "--python", "/no/such/python")
    assert done.returncode == 2
    assert "/no/such/python cannot tell which GPU it sees" in done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/bin/true", "/bin/true cannot tell which GPU it sees: expected a line of JSON, found ''"),
        ("/bin/echo", "/bin/echo cannot tell which GPU it sees: expected a line of JSON, found '"),
        ("", "--python is empty"),
    ],
)
def test_a_program_that_is_no_python_is_a_failure_that_names_it(name: str, says: str) -> None:
    done = gpu("capture", "--python", name)
    assert done.returncode == 2, "1 means that something differs"
    assert done.stderr.startswith(f"gpu-capture: {says}")


def test_a_python_with_an_unexpected_answer_is_refused(tmp_path: Path) -> None:
    for answer in ("3", "{}", "[]", "null"):
        with pytest.raises(GpuError, match="expected a line of JSON"):
            host_of(script(tmp_path / "other", f"echo '{answer}'"))


def test_a_python_without_torch_is_a_failure_if_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = script(tmp_path / "bare", f'exec {sys.executable} -I -S "$@"')
    monkeypatch.setattr(device, "has_nvidia", lambda: False)
    found = host_of(bare)
    assert found.gpu is None and found.torch.startswith("missing (No module named")
    monkeypatch.setattr(device, "has_nvidia", lambda: True)
    with pytest.raises(GpuError, match=r"has a GPU, but .* has no torch"):
        host_of(bare)


def test_a_gpu_is_detected_by_its_driver_file(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not device.has_nvidia(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert device.has_nvidia(tmp_path)


def script(path: Path, line: str) -> str:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    done = gpu("pack", str(taken))
    assert done.returncode == 2
    assert done.stderr.startswith(f"gpu-capture: {taken} is not a folder")


def test_the_generated_requests_cover_every_feature() -> None:
    asked = client_requests(1, 300, experts=True)
    assert asked[:20] == client_requests(1, 20, experts=True), (
        "a request depends on how many follow"
    )
    assert len({wish.rid for wish in asked}) == 300
    assert sum(wish.max_new_tokens <= 6 for wish in asked) > 50
    assert sum(wish.max_new_tokens >= 100 for wish in asked) > 100
    aborted = [wish for wish in asked if wish.abort_after is not None]
    assert {wish.abort_after for wish in aborted} >= {0.0, 1.0}
    assert any(not wish.stop_token_ids and wish.max_new_tokens > 100 for wish in aborted)
    rows = [wish for wish in asked if wish.start_len is not None]
    places = {0: "start", None: "within", 1: "end"}
    found = {places.get(_place(wish), "within") for wish in rows}
    assert found == {"start", "within", "end"}
    assert 0 < len(rows) < 300 and any(wish.start_len == 0 for wish in rows)
    assert sum(bool(wish.stop_token_ids) for wish in asked) > 50
    assert sum(wish.ignore_eos for wish in asked) > 50
    heads = [wish.prompt[:24] for wish in asked if len(wish.prompt) > 24]
    assert max(map(heads.count, heads)) > 10, "too few shared prefixes for the cache"
    assert not {token for wish in asked for token in wish.prompt} & set(EOS_TOKENS)
    assert all(wish.start_len is None for wish in client_requests(1, 300, experts=False))


def _place(wish: GenerateRequest) -> int | None:
    """Return 0 if the rows start with the prompt, 1 if they start at its end, else None."""
    return {0: 0, len(wish.prompt): 1}.get(wish.start_len or 0)


# What sglang itself reads from the flags, the configs and the requests. Only the device is replaced, because
# ServerArgs asks CUDA for its memory.
_READ = """
import json
from pathlib import Path
from sglang.srt.server_args import prepare_server_args
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.managers.io_struct import GenerateReqInput
from specdiff.fixtures.gpu.models import MODELS
from specdiff.fixtures.gpu.server import command, flags, settings, supported_settings
from specdiff.fixtures.gpu.toolkit import with_toolkit
from specdiff.fixtures.gpu.client_requests import client_requests
import sglang
found = {}
for model in MODELS:
    model.write(Path("."))
    chosen = supported_settings(settings(model, 30000), Path(sglang.__path__[0]))
    args = prepare_server_args([*flags(chosen), "--device", "cpu"])
    changed = {name for name, value in chosen.items() if getattr(args, name) != value}
    of = [ModelConfig.from_server_args(args), ModelConfig.from_server_args(
        args, model_path=args.speculative_draft_model_path, is_draft_model=True)]
    shapes = [(c.hf_config.architectures[0], c.hidden_size, c.vocab_size, c.head_dim, c.num_hidden_layers,
               c.context_len, sorted(c.hf_eos_token_id)) for c in of]
    for wish in client_requests(1, 40, experts=model.experts):
        request = GenerateReqInput(**wish.body)
        request.normalize_batch_and_arguments()
        assert request.is_single and request.input_ids == list(wish.prompt)
    found[model.name] = {"changed": sorted(changed), "shapes": shapes}
print(json.dumps(found))
"""


@pytest.mark.live
@pytest.mark.parametrize("version", ["0.5.13", NEWEST])
def test_sglang_accepts_the_flags_configs_and_requests(version: str, tmp_path: Path) -> None:
    done = python(f"import os; os.chdir({str(tmp_path)!r})\n{IMPORT_ONLY}{_READ}", version)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for model in MODELS:
        said = found[model.name]
        assert said["changed"] == []
        target, draft = said["shapes"]
        assert target[0] == model.config["architectures"][0]
        assert draft[0] == "LlamaForCausalLMEagle"
        assert target[1:4] == draft[1:4] == [256, 4096, 64]
        assert (target[4], draft[4]) == (2, 1)
        assert target[5:] == draft[5:] == [2048, list(EOS_TOKENS)]


def test_the_pack_has_only_the_kernels_that_this_gpu_loads() -> None:
    names = ["sgl_kernel/__init__.py", "sglang_kernel-0.4.3.dist-info/METADATA"]
    hopper, others = (f"sgl_kernel/sm{sm}/common_ops.abi3.so" for sm in (90, 100))
    never = ["sgl_kernel/flash_ops.abi3.so", "lib/libmscclpp.so", "sgl_kernel/sm90/"]
    assert kernels([*names, hopper, others, *never], 90) == [*names, hopper]
    assert kernels([*names, hopper, others, *never], 120) == [*names, others]
    assert "sglang==0.5.13" in requirements(image=False)
    bound = {"transformers==5.8.1", "tokenizers>=0.22,<=0.23.0"}
    assert bound <= set(requirements(image=False)), "images seldom have these versions"
    assert set(requirements(image=True)) - set(requirements(image=False)) >= {"aiohttp", "pillow"}


@pytest.mark.skipif(not EVERYTHING, reason="half a minute: only if all releases are tested")
@pytest.mark.live
def test_a_capture_of_the_rigs_server_is_recorded_judged_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is real except the GPU and the worker, which is the rig's.

    sglang's own server, the clients, the recorder, the judge and the report take part.
    """
    made = rigged(tmp_path, client_requests(1, 120, experts=True))
    host = Host("NVIDIA Rig 1", "none", rig_tree())
    judged, good = report_and_check(made, host)
    said = capsys.readouterr().out
    assert made.problem is None and good, said
    keep_all([judged], host, tmp_path / "kept")
    assert "cost of recording: p50" in said and "0 events dropped, 0 errors" in said
    (kept,) = (tmp_path / "kept").glob("*.h5")
    assert kept.name == "0.5.13-rig-1-tiny-qwen3-moe.h5"
    readme = (tmp_path / "kept/README.md").read_text()
    assert kept.name in readme and "NVIDIA Rig 1" in readme and str(tmp_path) not in readme
    held = hdf5.load(kept)
    reached = exercised(held)
    names = ["retract", "stop-mid-run", "abort-running", "abort-queued", "start-len"]
    names += ["cached-prefix", "paused-in-place", "paused-retracting"]
    assert [name for name in names if not reached[name]] == []
    assert len(made.responses.read_text().splitlines()) == len(held.rids) == 120
    rows = [line for line in said.splitlines() if line.startswith(("kv_committed_len ", "finish "))]
    assert all(int(row.split()[1].partition("/")[0]) > 300 for row in rows) and len(rows) == 2


def rig_tree() -> Path:
    return find_release("0.5.13").root / "sglang"


def rigged(home: Path, asked: Sequence[GenerateRequest]) -> Captured:
    port = free_port()
    chosen = settings(MOE, port)
    some = {name: chosen[name] for name in ("max_total_tokens", "max_running_requests")}
    some |= {name: chosen[name] for name in ("schedule_conservativeness", "skip_server_warmup")}
    rig = ["python", "-m", "specdiff.fixtures.rig", "--sglang", "0.5.13", "--serve"]
    serve = [*rig, "--port", str(port), "--", *flags(some)]
    return capture(MOE.name, serve, port, asked, home)


@pytest.mark.parametrize(("release", "same"), [("0.5.12", True), ("0.5.11", False)])
def test_the_matrix_counts_what_another_release_computes(release: str, same: bool) -> None:
    path = bundled() / "0.5.12-stale-stop.h5"
    judged = check_fidelity("here", path, program_of(Lifted(release, Origin.RELEASE, release)))
    assert judged.same is same
    (line,) = (row for row in matrix([judged]) if row.startswith("kv_committed_len "))
    assert (line.rpartition("/")[2] == "0") is same
    assert "retract" in judged.never and "stop-mid-run" not in judged.never
    assert "start-len" not in judged.never, "without a capturer no rows are expected"
    assert "p50" in overhead(judged.recording)


@pytest.mark.live
def test_a_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    fails: Sequence[str] = ["python", "-c", "import sys; sys.exit('no kernel for this GPU')"]
    with pytest.raises(GpuError, match=r"(?s)status 1 before it answered.*no kernel for this GPU"):
        capture(DENSE.name, fails, free_port(), client_requests(1, 1, experts=False), tmp_path)


# Reports that it is ready, and dies with the first request, like a server whose scheduler fails.
_GONE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        print("no kernel image is available", file=sys.stderr, flush=True)
        os._exit(1)
    def log_message(self, *told):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_dies_during_the_capture_is_reported_with_its_log(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    dies = ["python", "-c", _GONE, str(port)]
    with pytest.raises(GpuError, match=r"(?s)The end of .*tiny-llama.log:.*no kernel image"):
        capture(
            DENSE.name, dies, port, client_requests(1, 60, experts=False), tmp_path, say=said.append
        )
    assert said[-1].endswith("0 of 60 answered")


def test_a_server_that_never_answers_is_abandoned(tmp_path: Path) -> None:
    waits = ["python", "-c", "import time; time.sleep(600)"]
    asked = client_requests(1, 1, experts=False)
    began = time.monotonic()
    with pytest.raises(GpuError, match="did not answer within 2 s"):
        capture(DENSE.name, waits, free_port(), asked, tmp_path, seconds=2)
    assert time.monotonic() - began < 60


def test_progress_shows_the_last_line_of_the_log(tmp_path: Path) -> None:
    log, said, answers = tmp_path / "x.log", list[str](), ClientAnswers(2)
    log.write_text("Load weight begin.\nCapture begin.\n\n")
    answers.put(1, {})
    with progress("x", answers, log, said.append, every_s=0.01):
        wait_for(lambda: said, "a line")
    assert said[0].startswith("x: 0 s, 1 of 2 answered; log: Capture begin.")
    assert said[-1] == "x: 0 s, 1 of 2 answered"


@pytest.mark.live
def test_a_refused_request_does_not_lose_the_recording_of_the_others(tmp_path: Path) -> None:
    long = GenerateRequest("too-long", tuple(range(40, 4000)), 4)
    made = rigged(tmp_path, (*client_requests(1, 12, experts=True), long))
    assert made.problem is not None and "too-long: the server answered 400" in made.problem
    assert len(made.answers) == len(hdf5.load(made.recording).rids) == 12


def test_the_toolkit_is_found_through_nvcc(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path)}
    assert with_toolkit(bare) == bare, "without a compiler the environment must not change"
    top = tmp_path / "cuda-13.0"
    (top / "bin").mkdir(parents=True)
    script(tmp_path / "nvcc", f"echo '#$ TOP={top}/bin/..' >&2")
    assert with_toolkit(bare) == {**bare, "CUDA_HOME": str(top)}
    mine = {**bare, "CUDA_HOME": "/mine"}
    assert with_toolkit(mine) == mine


def test_kernels_that_were_compiled_in_advance_are_found(tmp_path: Path) -> None:
    env = {"PATH": "/bin"}
    assert with_kernels(env, tmp_path) == env
    ninja = tmp_path / "compiled/ninja"
    ninja.parent.mkdir()
    ninja.write_text(STUB)
    ninja.chmod(0o755)
    found = with_kernels(env, tmp_path)
    assert found["PATH"] == f"{ninja.parent}:/bin"
    assert found["TVM_FFI_CACHE_DIR"] == str(tmp_path / "tvm-ffi")
    real, built = tmp_path / "real", tmp_path / "built"
    real.mkdir()
    built.mkdir()
    script(real / "ninja", "echo compiles >&2; exit 3")
    asked = {**found, "PATH": f"{ninja.parent}:{real}:/bin"}
    assert subprocess.run(["ninja", "-v"], cwd=built, env=asked, check=False).returncode == 3
    (built / "x.so").touch()
    assert subprocess.run(["ninja", "-v"], cwd=built, env=asked, check=False).returncode == 0


def test_a_kernel_that_does_not_compile_is_reported(tmp_path: Path) -> None:
    fails = script(tmp_path / "python", "echo 'no nvcc here' >&2; exit 1")
    done = gpu("kernels", str(tmp_path), "--python", fails)
    assert done.returncode == 2
    assert "not compiled.\nno nvcc here" in done.stderr


def test_recordings_kept_one_by_one_are_all_listed(tmp_path: Path) -> None:
    program = program_of(Lifted("0.5.12", Origin.RELEASE, "0.5.12"))
    here = check_fidelity("dense", bundled() / "0.5.12-stale-stop.h5", program)
    there = check_fidelity("moe", bundled() / "0.5.12-stale-stop.h5", program)
    for one in (here, there, here):
        keep_all([one], Host("NVIDIA Rig 1", "none", None), tmp_path)
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if ".h5" in line]
    assert [row.split()[1] for row in rows] == [
        f"0.5.12-rig-1-{name}.h5" for name in ("moe", "dense")
    ]


@pytest.mark.live
def test_a_server_without_specdiff_writes_journals_that_are_recovered_elsewhere(
    tmp_path: Path,
) -> None:
    """As in docs/gpu.md, with two environment variables and only the standard library."""
    inject = Path(recorders.__file__).parent / "capture/inject"
    before = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join(filter(None, [str(inject), before]))
    told = {"SPECDIFF_RECORD_DIR": str(tmp_path), "PYTHONPATH": paths}
    played = rig("0.5.13", "stale-stop")
    subprocess.run(played, env={**os.environ, **told}, check=True, capture_output=True)
    done = specdiff("recover", tmp_path)
    assert done.returncode == 0, done.stderr
    held = hdf5.load(Path(done.stdout.strip()))
    assert (len(held.rids), held.run.specdiff_version) == (8, "unknown")


def test_a_clone_that_is_not_installed_can_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(record, "version", nowhere)
    told = tmp_path / "told"
    echo = ["sh", "-c", f"echo $SPECDIFF_RECORD_OPTIONS > {told}"]
    record.record(tmp_path / "out", echo, options={}, force=False, say=print)
    assert json.loads(told.read_text())["specdiff_version"] == "not installed"


def test_the_recorded_command_names_no_folder() -> None:
    told = command(settings(MOE, 1), "/opt/venv/bin/python3.12")
    assert told[:3] == ["python3.12", "-m", "sglang.launch_server"]
    assert not [word for word in told if "/" in word]
    assert "--enable-return-routed-experts" in told and "--disable-cuda-graph" in told
    graphs = command(settings(DENSE, 1, graphs=True), "python")
    assert not [word for word in graphs if "graph" in word or "experts" in word]


def test_switches_that_a_release_lacks_are_left_out() -> None:
    chosen = settings(DENSE, 1)
    old = supported_settings(chosen, rig_tree())
    new = supported_settings(chosen, find_release(NEWEST).root / "sglang")
    assert set(old) == set(chosen)
    assert set(old) - set(new) == {"disable_piecewise_cuda_graph"}
