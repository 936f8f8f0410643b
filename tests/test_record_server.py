"""`specdiff record` around sglang's own HTTP server: launcher, tokenizer, detokenizer and spawned schedulers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from children import EVERYTHING, SPECDIFF, on_demand, rig
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.replay import spec
from specdiff.replay.columns.engine import RULED
from specdiff.replay.exercised import exercised
from specdiff.replay.quantity import Quantity
from specdiff.replay.reconcile.read import load
from specdiff.replay.reconcile.reconcile import reconcile
from specdiff.replay.verdict import Verdict, replay

pytestmark = pytest.mark.live


@contextmanager
def recorded_server(
    version: str, folder: Path, *flags: str, options: Sequence[str] = ()
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server under `specdiff record`, in a process session of its own.

    Yields its port and the `specdiff record` process. `options` are those of `specdiff record`.
    """
    port = free_port()
    serve = rig(version, "random", "--serve", "--port", str(port), *flags)
    log = folder.with_name(f"{folder.name}.log")
    with (
        log.open("w") as said,
        subprocess.Popen(
            [*SPECDIFF, "record", "-o", str(folder), *options, "--", *serve],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        ) as parent,
    ):
        try:
            yield port, parent
        except BaseException:
            print(log.read_text()[-4000:])  # pytest shows this with the failure
            raise
        finally:
            if parent.poll() is None:
                os.killpg(parent.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port below the kernel's range for outgoing connections, so that no client takes it before the server."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port between 20000 and 30000")


def ask(port: int, requests: int, *more: str) -> None:
    """Send real HTTP requests with streams, stops and aborts. The client checks every token that it gets back."""
    client = [
        sys.executable,
        "-m",
        "specdiff.fixtures.rig.client",
        "--port",
        str(port),
        "--seed",
        "3",
        "--wait",
        "240",
    ]
    done = subprocess.run(
        [*client, "--requests", str(requests), *more],
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def stop(parent: subprocess.Popen[str], folder: Path) -> list[Recording]:
    """Send SIGTERM to `specdiff record` alone and return the recordings.

    The signal is passed on to sglang, which drains and then kills its schedulers with SIGKILL.
    """
    parent.send_signal(signal.SIGTERM)
    output, _ = parent.communicate(timeout=120)
    paths = [Path(path) for path in output.split()]
    left = [path for path in folder.iterdir() if not path.name.endswith(".run.json")]
    assert sorted(left) == sorted(paths), (
        "only the recordings, and the manifest of several, are left"
    )
    return [hdf5.load(path) for path in paths]


def check_whole(recording: Recording) -> None:
    assert recording.damage is None
    assert (
        recording.stats is not None and recording.stats.exceptions == recording.stats.dropped == 0
    )
    assert recording.results.launch.tolist() == recording.launches.launch.tolist()


@pytest.mark.parametrize(
    ("version", "books"), [*on_demand(("0.5.13", "fixed")), ("0.5.23", "fixed-22651")]
)
def test_a_real_http_server_is_recorded_and_replays_as_same(
    version: str, books: str, tmp_path: Path
) -> None:
    responses = tmp_path.with_name(f"{tmp_path.name}.jsonl")
    with recorded_server(version, tmp_path) as (port, parent):
        ask(port, 60, "--experts", "--logprobs", "--responses", str(responses))
        (recording,) = stop(parent, tmp_path)
    check_whole(recording)
    reached = exercised(recording)
    assert [
        name for name in ("finish", "stop-mid-run", "merge", "filter") if not reached[name]
    ] == []
    assert reached["stale-finished-1"] + reached["stale-finished-many"] > 10
    result = replay(recording, spec.parse("observed"), spec.parse(books))
    assert result.verdict is Verdict.SAME
    lifted = replay(recording, spec.parse("observed"), spec.parse(f"sglang=={version}"))
    assert lifted.verdict is Verdict.SAME
    # this server has no indexer, and its clients use no sessions
    absent = {Quantity.INDEXER_TOPK, Quantity.SESSION_COMMITTED}
    for found, compared in ((result, RULED - absent), (lifted, set(Quantity) - absent)):
        for quantity in found.quantities:
            if quantity.quantity in compared:
                assert quantity.num_compared > 0 == quantity.num_not_captured, quantity.quantity
    assert replay(recording, spec.OLD, spec.FIXED).verdict is Verdict.DIFFERS
    told = reconcile(recording, load(responses))
    assert told.verdict(complete=False) is Verdict.SAME and told.num_matched == 60
    assert sum(one.num_compared for one in told.facts) > 700


@pytest.mark.skipif(not EVERYTHING, reason="slow: set SPECDIFF_TEST_ALL_RELEASES")
def test_two_dp_ranks_leave_two_recordings(tmp_path: Path) -> None:
    with recorded_server("0.5.13", tmp_path, "--", "--dp-size", "2") as (port, parent):
        ask(port, 40)
        recordings = stop(parent, tmp_path)
    assert sorted(recording.run.dp_rank or 0 for recording in recordings) == [0, 1]
    assert len({recording.run.run_id for recording in recordings}) == 1
    rids = [rid for recording in recordings for rid in recording.rids]
    assert len(set(rids)) == len(rids)
    for recording in recordings:
        check_whole(recording)
