"""Read the run attributes from a scheduler, after its constructor has returned."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..run import JsonScalar, Run, Site
from .books import books_release
from .capturer import has_capturer
from .config import Config
from .fingerprint import hash_in_file
from .sites import ACCOUNTING_SOURCES, PREPARE_FUNCTIONS, SCHEDULER_MODULE

_RUNNING = "max_running_requests"
_SERVER_ARGS = (
    "attention_backend",
    "chunked_prefill_size",
    "disable_overlap_schedule",
    "disable_radix_cache",
    "disaggregation_mode",
    "dp_size",
    "enable_dp_attention",
    "enable_mixed_chunk",
    "enable_priority_scheduling",
    "enable_return_routed_experts",
    "max_prefill_tokens",
    _RUNNING,
    "max_total_tokens",
    "page_size",
    "pp_size",
    "prefill_max_requests",
    "radix_eviction_policy",
    "schedule_conservativeness",
    "schedule_policy",
    "speculative_accept_threshold_acc",
    "speculative_accept_threshold_single",
    "speculative_adaptive",
    "speculative_algorithm",
    "speculative_attention_mode",
    "speculative_eagle_topk",
    "speculative_num_draft_tokens",
    "speculative_num_steps",
    "strip_thinking_cache",
    "tp_size",
)
_POOL = "max_total_num_tokens"  # not a server argument, but the scheduler's size of the KV pool
_MOST_DRAFT_TOKENS = "max_speculative_num_draft_tokens"


def describe_run(scheduler: Any, config: Config, sites: Iterable[Site]) -> Run:
    """Return the run attributes; None for those that this sglang does not have."""
    sites, args = tuple(sites), scheduler.server_args
    version, commit = sglang_version()
    resolve = next((site.ast_hash for site in sites if site.name == "resolve"), None)
    return Run(
        run_id=config.run_id,
        specdiff_version=config.specdiff_version,
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        command=config.command,
        pid=os.getpid(),
        python=platform.python_version(),
        sglang_version=version,
        sglang_commit=commit,
        books=books_release(resolve, _prepare_hash(), version),
        sources=dict(_sources()),
        sites=sites,
        spec_algorithm=str(getattr(scheduler.spec_algorithm, "name", scheduler.spec_algorithm)),
        spec_v2=why_not_spec_v2(scheduler) is None,
        overlap=bool(getattr(scheduler, "enable_overlap", False)),
        num_steps=_int(getattr(args, "speculative_num_steps", None)),
        topk=_int(getattr(args, "speculative_eagle_topk", None)),
        num_draft_tokens=_int(getattr(args, "speculative_num_draft_tokens", None)),
        page_size=_int(getattr(scheduler, "page_size", None)) or 1,
        device=str(getattr(args, "device", "unknown")),
        needs_cpu_seq_lens=getattr(
            getattr(scheduler, "future_map", None), "needs_cpu_seq_lens", None
        ),
        experts_capturer=has_capturer("experts"),
        indexer_capturer=has_capturer("indexer"),
        tp_rank=parallel(scheduler, "tp_rank") or 0,
        tp_size=parallel(scheduler, "tp_size") or 1,
        dp_rank=parallel(scheduler, "dp_rank"),
        # From 0.5.22 on, `dp_size` counts only replicas, not the ranks of DP attention.
        dp_size=parallel(scheduler, "num_dp_ranks") or parallel(scheduler, "dp_size") or 1,
        pp_rank=parallel(scheduler, "pp_rank") or 0,
        pp_size=parallel(scheduler, "pp_size") or 1,
        server_args=_server_args(scheduler),
        rows=config.choice.rows,
        weight_versions=_weight_versions(sites),
    )


def _weight_versions(sites: Iterable[Site]) -> tuple[str, ...]:
    """Return the name of the current weights, if the recorder will notice later changes."""
    noticed = any(site.name == "weights" and site.attached for site in sites)
    serving = serving_weights() if noticed else None
    return () if serving is None else (serving,)


def serving_weights() -> str | None:
    """Return the name of the current weights, as the scheduler reports it to clients (from 0.5.19 on)."""
    get = getattr(sys.modules.get(SCHEDULER_MODULE), "get_serving", None)
    version = getattr(get(), "weight_version", None) if get is not None else None
    return None if version is None else str(version)


def with_capturers(run: Run) -> Run:
    """Return the run with the capturers updated: they may be created after the constructor returned."""
    return dataclasses.replace(
        run, experts_capturer=has_capturer("experts"), indexer_capturer=has_capturer("indexer")
    )


def why_not_spec_v2(scheduler: Any) -> str | None:
    """Return None if the scheduler runs spec v2, else a sentence with the reason."""
    algorithm = getattr(scheduler, "spec_algorithm", None)
    if algorithm is None or algorithm.is_none():
        return "speculative decoding is off (no --speculative-algorithm)"
    module = sys.modules.get("sglang.srt.managers.schedule_batch")
    rule = getattr(getattr(module, "ScheduleBatch", None), "is_spec_v2", None)
    if (
        not isinstance(rule, property) or rule.fget is None
    ):  # from 0.5.14 on, spec v2 is the only one
        return None
    overlap = bool(getattr(scheduler, "enable_overlap", False))
    if rule.fget(SimpleNamespace(enable_overlap=overlap, spec_algorithm=algorithm)):
        return None
    if overlap:
        return f"{algorithm.name} runs as spec v1 in this sglang"
    if _spec_v2_switched_off():
        return "this sglang runs spec v1 unless SGLANG_ENABLE_SPEC_V2=1 is set"
    return "overlap scheduling is off, so this sglang runs spec v1"


def _spec_v2_switched_off() -> bool:
    """Up to 0.5.10.post1, spec v2 is opt-in. sglang's own function reads the switch."""
    envs = getattr(sys.modules.get("sglang.srt.environ"), "envs", None)
    switch = getattr(envs, "SGLANG_ENABLE_SPEC_V2", None)
    return switch is not None and not switch.get()


def sglang_version() -> tuple[str, str | None]:
    """Return (version, commit). The commit is None unless sglang's build recorded it."""
    module = sys.modules.get("sglang.version") or sys.modules.get("sglang")
    generated = sys.modules.get("sglang._version")
    commit = getattr(generated, "__commit_id__", None)
    return str(getattr(module, "__version__", "unknown")), commit and str(commit)


def _sglang_root() -> Path | None:
    package = sys.modules.get("sglang.srt")
    where = list(getattr(package, "__path__", ()))
    return Path(where[0]) if where else None


@cache
def _prepare_hash() -> str | None:
    root = _sglang_root()
    for place in PREPARE_FUNCTIONS if root else ():
        path, name = place.split(":")
        if found := hash_in_file(Path(str(root)) / path, name):
            return found
    return None


@cache
def _sources() -> Mapping[str, str]:
    """Return the hashes of the accounting sources.

    The first call is when the scheduler is constructed, so that they are those of the loaded code,
    even if a recording begins much later.
    """
    root, sums = _sglang_root(), {}
    for name in ACCOUNTING_SOURCES if root else ():
        path = Path(str(root)) / name
        if path.is_file():
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


def parallel(scheduler: Any, name: str) -> int | None:
    """Return a rank or size of the scheduler.

    It is on the scheduler up to 0.5.12, on its `ps` up to 0.5.20, then in sglang's runtime context.
    """
    for home in (scheduler, getattr(scheduler, "ps", None), _runtime_parallel()):
        value = _int(getattr(home, name, None))
        if value is not None:
            return value
    return _int(getattr(scheduler.server_args, name, None))


def _runtime_parallel() -> Any:
    get = getattr(sys.modules.get("sglang.srt.managers.scheduler"), "get_parallel", None)
    try:
        return None if get is None else get()
    except Exception:  # noqa: BLE001 (without a context, sglang may raise anything)
        return None


def _server_args(scheduler: Any) -> dict[str, JsonScalar]:
    args = scheduler.server_args
    found = {name: getattr(args, name, None) for name in _SERVER_ARGS}
    found[_POOL] = getattr(scheduler, _POOL, None)
    # The scheduler's own share, which may be smaller than the argument.
    found[f"scheduler_{_RUNNING}"] = getattr(scheduler, _RUNNING, None)
    found[_MOST_DRAFT_TOKENS] = _most_draft_tokens(args)
    return {k: value for k, value in found.items() if isinstance(value, str | int | float | bool)}


def _most_draft_tokens(args: Any) -> int | None:
    """Return the maximum of an adaptive draft length.

    It is on the server arguments from 0.5.13 on, and in sglang's runtime context from 0.5.18 on.
    """
    context = sys.modules.get("sglang.srt.runtime_context")
    try:
        return _int(
            getattr(context, _MOST_DRAFT_TOKENS, lambda: getattr(args, _MOST_DRAFT_TOKENS, None))()
        )
    except Exception:  # noqa: BLE001 (without a context, sglang may raise anything)
        return None


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None
