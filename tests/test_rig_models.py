"""Models with other pools than one for KV: sliding windows (gpt-oss) and linear attention (qwen3-next).

Which slots a window frees, and which states a request holds, is in no quantity. These tests show
that sglang's own pools for such models are really used, and that the books stay as the lifted
functions say.
"""

from __future__ import annotations

import json

import pytest

from children import on_demand, python
from lifting import against_observed, compiled, release
from recorded import RigRecorder
from specdiff.replay.quantity import Quantity as Q

ABSENT = {Q.INDEXER_TOPK, Q.SESSION_COMMITTED}
POOLS = """
import gc, json, sys
from specdiff.fixtures.rig.inprocess import run_scenario
from specdiff.fixtures.rig.play import find_play
from specdiff.fixtures.rig.speculation import Speculation
play = find_play(
    sys.argv[1], "random", Speculation(model=sys.argv[2]), seed=1, runs=1, requests=60,
    overlap=True, paused=False, indexer=False,
)
run_scenario(play.release, play.scenario)
found = {type(one).__name__: one for one in gc.get_objects() if "Pool" in type(one).__name__}
if pools := found.get("SWATokenToKVPoolAllocator"):
    full = pools.size_full - pools.full_available_size()
    print(json.dumps([full, pools.size_swa - pools.swa_available_size()]))
if pool := found.get("HybridReqToTokenPool"):
    print(json.dumps([int((pool.req_index_to_mamba_index_mapping > 0).sum())]))
"""


def pools(version: str, model: str) -> list[int]:
    done = python(POOLS, version, model)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", [*on_demand("0.5.9", "0.5.14"), "0.5.23"])
def test_a_window_frees_the_slots_before_it_and_keeps_those_of_full_attention(version: str) -> None:
    """At the end only the radix cache holds slots. Had nothing slid, it would hold as many of both."""
    full, window = pools(version, "gpt-oss")
    assert full > window > 0


@pytest.mark.parametrize("version", on_demand("0.5.9", "0.5.14", "0.5.23"))
def test_linear_attention_gives_requests_a_state(version: str) -> None:
    assert pools(version, "qwen3-next") > [0]


@pytest.mark.parametrize(
    ("version", "model"), [*on_demand(("0.5.9", "gpt-oss")), ("0.5.23", "qwen3-next")]
)
def test_lifted_equals_observed(version: str, model: str, record: RigRecorder) -> None:
    recording = record(version, "random", 5, "--model", model, "--requests", "60")
    with release(version) as source:
        found = against_observed(recording, compiled(source))
    for quantity, difference in found.items():
        assert not difference.differs.any(), quantity
        if quantity not in ABSENT:
            assert difference.num_compared == len(difference.old.cells) > 0, quantity


def test_sessions_in_a_window_lifted_equals_observed(record: RigRecorder) -> None:
    recording = record("0.5.23", "sessions-random", 1, "--model", "gpt-oss", "--page-size", "16")
    with release("0.5.23") as source:
        found = against_observed(recording, compiled(source))
    assert found[Q.SESSION_COMMITTED].num_compared > 0
    assert not any(one.differs.any() for one in found.values())
