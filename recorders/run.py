"""The run attributes: what made a recording, and how (standard library only)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from .errors import RecordingError

JsonScalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Site:
    """One hook site: where it was found, whether it attached, and the hash of its function."""

    name: str  # the role: prepare, launch, resolve, ...
    target: str  # module:qualified.name; if it was not found, the newest place that was searched
    attached: bool
    essential: bool
    # First 16 hex digits of the sha256 of the normalized AST; None if the source was not readable.
    ast_hash: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """What recording cost, and what it lost.

    Times are nanoseconds that the recorder spent on the scheduler thread, per iteration of the
    scheduler loop. `step_ns` covers the iterations that processed a decode result, `prefill_ns`
    those that processed a prefill result.
    """

    events: int
    dropped: int
    exceptions: int
    first_exception: str | None
    step_ns_p50: int | None
    step_ns_p99: int | None
    step_ns_max: int | None
    steps_measured: int
    closed: bool  # the writer finished normally; False if the process was killed
    # Older recordings do not have the following. Prefill times are part of the next decode step's
    # time there.
    prefill_ns_p50: int | None = None
    prefill_ns_p99: int | None = None
    ended_early: bool = False  # recording ended before its server did: a stop or a limit


@dataclass(frozen=True, slots=True)
class Run:
    """The attributes of one recorded scheduler process.

    None means that this sglang does not have the attribute, or that it could not be read.
    """

    run_id: str  # one per `specdiff record`
    specdiff_version: str
    started: str  # ISO 8601, UTC
    command: tuple[str, ...]
    pid: int
    python: str
    sglang_version: str
    sglang_commit: str | None
    books: str  # the release with the same resolve and prepare functions, by AST hash; or "unknown"
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
    server_args: dict[str, JsonScalar]  # those that affect the books
    # Which top-k rows `--experts` asked to keep; None: the recording is older than format 4.
    rows: str | None = None
    # sglang's names of the weight versions, in order of appearance.
    weight_versions: tuple[str, ...] = ()

    def weights(self, number: int) -> str:
        """Return sglang's name of the weights with this number."""
        known = 0 <= number < len(self.weight_versions)
        return self.weight_versions[number] if known else f"number {number}"

    @property
    def decode_side(self) -> bool:
        """Whether this is the decode side of a disaggregated server.

        Its prompts, and the first output token of each, are computed by the other side.
        """
        return self.server_args.get("disaggregation_mode") == "decode"

    @property
    def prefill_side(self) -> bool:
        """Whether this is the prefill side of a disaggregated server.

        There a request ends when its KV has been sent.
        """
        return self.server_args.get("disaggregation_mode") == "prefill"


def to_json(value: Run | Stats) -> str:
    return json.dumps(dataclasses.asdict(value), sort_keys=True, separators=(",", ":"))


def run_from_json(text: str | bytes) -> Run:
    """The inverse of `to_json`. Raises RecordingError naming the field that is missing or unknown."""
    raw = _object(text, "run attributes")
    sites = tuple(_build(Site, item, "a hook site") for item in raw.pop("sites", []))
    for name in ("command", "weight_versions"):
        raw[name] = _texts(raw.get(name, []), name)
    run: Run = _build(Run, {**raw, "sites": sites}, "the run attributes")
    return run


def _texts(found: Any, name: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RecordingError(f"the run attributes: {name} is not a list of texts")
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
        raise RecordingError(f"the {what} are {type(raw).__name__}, expected a JSON object")
    return raw


def _build(cls: Any, raw: dict[str, Any], what: str) -> Any:
    expected = {field.name for field in dataclasses.fields(cls)}
    later = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    if missing := sorted(expected - later - raw.keys()):
        raise RecordingError(f"{what} lack {', '.join(missing)}")
    if unknown := sorted(raw.keys() - expected):
        raise RecordingError(f"{what} have unknown fields: {', '.join(unknown)}")
    return cls(**raw)
