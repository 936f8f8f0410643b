"""Who made a recording and how: the attributes of one scheduler process (standard library only)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from .errors import RecordingError

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Site:
    """One hook site: where it was looked for, whether it attached, and the hash of the function found there."""

    name: str  # the role: prepare, launch, resolve, ...
    target: str  # module:qualified.name, the newest place that it was looked for at, when none was found
    attached: bool
    essential: bool
    ast_hash: (
        str | None
    )  # sha256 of the normalised AST, first 16 hex digits; None where the source was not readable


@dataclass(frozen=True, slots=True)
class Stats:
    """What recording cost and lost. Times are nanoseconds on the scheduler thread, by turns of its loop: `step_ns` of those in
    which a decode step's result was processed, `prefill_ns` of those with a prefill's."""

    events: int
    dropped: int
    exceptions: int
    first_exception: str | None
    step_ns_p50: int | None
    step_ns_p99: int | None
    step_ns_max: int | None
    steps_measured: int
    closed: bool  # the writer reached its end; False where the process was killed
    prefill_ns_p50: int | None = (
        None  # of recordings without it, it is a part of the next decode step's
    )
    prefill_ns_p99: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded scheduler process. Absent (None) means: this sglang has no such thing, or it could not be read."""

    run_id: str  # one per `specdiff record`
    specdiff_version: str
    started: str  # ISO 8601, UTC
    command: tuple[str, ...]
    pid: int
    python: str
    sglang_version: str
    sglang_commit: str | None
    books: str  # the release whose resolve function this is, by AST hash, or "unknown"
    sources: dict[str, str]  # accounting source file under sglang/srt -> sha256
    sites: tuple[Site, ...]
    spec_algorithm: str
    spec_v2: bool
    overlap: bool
    num_steps: int | None
    topk: int | None
    num_draft_tokens: int | None
    page_size: int
    device: str
    needs_cpu_seq_lens: bool | None
    experts_capturer: bool
    indexer_capturer: bool
    tp_rank: int
    tp_size: int
    dp_rank: int | None
    dp_size: int
    pp_rank: int
    pp_size: int
    server_args: dict[str, Scalar]  # those that bear on the books
    rows: str | None = (
        None  # which top-k rows were to be kept (`--experts`); None: written before format 4
    )
    weight_versions: tuple[
        str, ...
    ] = ()  # as sglang calls them, in the order in which they came up

    def weights(self, number: int) -> str:
        """What sglang calls the weights of this number."""
        known = 0 <= number < len(self.weight_versions)
        return self.weight_versions[number] if known else f"number {number}"

    @property
    def decode_side(self) -> bool:
        """Of a disaggregated server: prompts, and the first token of each, come from another."""
        return self.server_args.get("disaggregation_mode") == "decode"

    @property
    def prefill_side(self) -> bool:
        """Of a disaggregated server: a request ends when its KV has been sent."""
        return self.server_args.get("disaggregation_mode") == "prefill"


def to_json(value: Run | Stats) -> str:
    return json.dumps(dataclasses.asdict(value), sort_keys=True, separators=(",", ":"))


def run_from_json(text: str | bytes) -> Run:
    """Raises RecordingError naming the field that is missing or unknown."""
    raw = _object(text, "run attributes")
    sites = tuple(_build(Site, item, "a hook site") for item in raw.pop("sites", []))
    for name in ("command", "weight_versions"):
        raw[name] = _texts(raw.get(name, []), name)
    run: Run = _build(Run, {**raw, "sites": sites}, "the run attributes")
    return run


def _texts(found: Any, name: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RecordingError(f"the run attributes have another {name} than a list of texts")
    return tuple(found)


def stats_from_json(text: str | bytes) -> Stats:
    stats: Stats = _build(Stats, _object(text, "recorder statistics"), "the recorder's statistics")
    return stats


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise RecordingError(f"the {what} are not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RecordingError(f"the {what} are {type(raw).__name__}, an object was expected")
    return raw


def _build(cls: Any, raw: dict[str, Any], what: str) -> Any:
    expected = {field.name for field in dataclasses.fields(cls)}
    later = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    if missing := sorted(expected - later - raw.keys()):
        raise RecordingError(f"{what} lack {', '.join(missing)}")
    if unknown := sorted(raw.keys() - expected):
        raise RecordingError(f"{what} have unknown fields: {', '.join(unknown)}")
    return cls(**raw)
