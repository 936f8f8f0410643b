"""A real server with two tensor-parallel ranks: recording starts and stops on each while requests run."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from children import EVERYTHING
from specdiff.recorders import hdf5, run_manifest
from specdiff.recorders.runtime import RUNTIME
from specdiff.replay.agreement import agree
from test_attach import attach
from test_record_server import recorded_server


def ask(port: int, seed: int, requests: int) -> None:
    """Send requests without aborts. The ranks may be so slow that an abort hits a request that should finish."""
    told = ("--port", port, "--seed", seed, "--requests", requests, "--wait", 240, "--no-aborts")
    client = [sys.executable, "-m", "specdiff.fixtures.rig.client", *map(str, told)]
    done = subprocess.run(client, capture_output=True, text=True, timeout=420, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not EVERYTHING, reason="slow: set SPECDIFF_TEST_ALL_RELEASES")
@pytest.mark.live
def test_recording_starts_and_stops_on_all_ranks_and_they_agree_where_both_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two do not start at the same moment. Events that only one of them recorded are not compared."""
    monkeypatch.setenv(RUNTIME, str(tmp_path / "run"))
    # otherwise sglang wants a NUMA node for each rank
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|0")
    folder = tmp_path / "r"
    flags = ("--no-experts", "--", "--tp-size", "2")
    with recorded_server("0.5.23", folder, *flags, options=("--paused",)) as (port, parent):
        ask(port, 1, 4)
        said = attach(folder, "start")[1]
        assert said.count("recording to") == 1
        assert said.count("does not record: tp rank 1 (attn_tp_rank 1)") == 1
        (told,) = map(run_manifest.read, run_manifest.manifests(folder))
        assert sorted(one.left_out for one in told.schedulers) == [False, True]
        ask(port, 2, 4)
        (path,) = map(Path, attach(folder, "stop")[0].split())
        assert hdf5.load(path).run.run_id == told.run_id

        load = threading.Thread(target=ask, args=(port, 3, 60))
        load.start()
        assert attach(folder, "--all-ranks", "start")[1].count("recording to") == 2
        load.join()
        paths = sorted(map(Path, attach(folder, "stop")[0].split()), key=lambda one: one.name[-6:])
        parent.terminate()
        parent.communicate(timeout=120)
    left, right = map(hdf5.load, paths)
    assert [left.run.tp_rank, right.run.tp_rank] == [0, 1]
    found = agree(left, right)
    assert found.first is None, found
    assert found.num_events > 200 and found.num_values > 3000
    assert "running server" in found.why[0]
