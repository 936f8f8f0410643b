"""The result of a play: its recordings, or the reason why it cannot be judged."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

_RIG, _OURS = "rig: ", "specdiff: "
_OF_TORCH = re.compile(r"^\[rank\d+\]: ")  # torch's prefix of each line of a traceback


@dataclass(frozen=True, slots=True)
class PlayResult:
    """The result of one play.

    `recordings` has one entry per scheduler. `why` is set if there are none, or if the play did not
    finish. `ended_differently` lists the requests that ended differently than in the recording that was
    played, or than the script says.
    """

    recordings: tuple[Path, ...]
    why: str | None = None
    ended_differently: tuple[str, ...] = ()


def complete(recorded: Path, result: Path, stderr: str) -> PlayResult:
    """Return the result of a play whose exit status was 0."""
    if not result.is_file():
        return PlayResult((), why(stderr, ended_well=False))
    said = json.loads(result.read_text())
    recordings = _alone(recorded) or tuple(sorted(recorded.glob("*.h5")))
    if len(recordings) != said["recorded"]:
        count = f"{len(recordings)} of {said['recorded']} schedulers were recorded"
        return PlayResult(recordings, f"{count}: {why(stderr, ended_well=True)}")
    return PlayResult(recordings, None, tuple(said["unexpected"] or ()))


def _alone(recorded: Path) -> tuple[Path, ...]:
    """If the folder holds exactly one recording, move it up to replace the folder.

    Otherwise leave everything in place and return nothing.
    """
    inside = list(recorded.iterdir()) if recorded.is_dir() else []
    if len(inside) != 1 or inside[0].suffix != ".h5":
        return ()
    (recording,) = inside
    moved = recording.rename(recorded.with_name(f"{recorded.name}.h5"))
    recorded.rmdir()
    return (moved,)


def failed(played: PlayResult, recorded: Path) -> PlayResult:
    """Move what a failed play left into the folder `failed`, apart from the good recordings."""
    aside = recorded.parent / "failed"
    for left in (recorded, recorded.with_name(f"{recorded.name}.h5")):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
        elif left.exists():
            aside.mkdir(exist_ok=True)
            left.rename(aside / left.name)
    return replace(played, recordings=())


def why(stderr: str, *, ended_well: bool) -> str:
    """Pick from `stderr` the lines that explain why a play failed.

    If the rig ended well, that is specdiff's last message. Otherwise it is the rig's last message,
    unless a traceback follows that message: then it is the last line of the traceback.
    """
    lines = [_OF_TORCH.sub("", line) for line in stderr.splitlines()]
    lines = [line for line in lines if line.strip()]
    ours = [line.removeprefix(_OURS) for line in lines if line.startswith(_OURS)]
    others = [line for line in lines if not line.startswith(_OURS)]
    if ended_well:
        return ours[-1] if ours else "it ended without a message"
    last = max((i for i, line in enumerate(others) if line.startswith(_RIG)), default=len(others))
    said = others[last:]
    if said and not any("Traceback (most recent call last)" in line for line in said):
        return "\n".join(said).removeprefix(_RIG)
    return (others or ours or ["it ended without a message"])[-1]
