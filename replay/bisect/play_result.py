"""What came of a play: its recordings, or why it is not to be judged."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

_RIG, _OURS = "rig: ", "specdiff: "
_OF_TORCH = re.compile(r"^\[rank\d+\]: ")  # in front of each line of a traceback


@dataclass(frozen=True, slots=True)
class Played:
    """`recordings`: one for each scheduler. `why`: there are none, or the play did not come to its end. `otherwise`: who ended
    in another way than in the recording that was played, or that its script says."""

    recordings: tuple[Path, ...]
    why: str | None = None
    otherwise: tuple[str, ...] = ()


def complete(made: Path, result: Path, told: str) -> Played:
    """Of a play that ended well, as far as its exit status says."""
    if not result.is_file():
        return Played((), why(told, ended_well=False))
    said = json.loads(result.read_text())
    recordings = _alone(made) or tuple(sorted(made.glob("*.h5")))
    if len(recordings) != said["recorded"]:
        count = f"{len(recordings)} of {said['recorded']} schedulers were recorded"
        return Played(recordings, f"{count}: {why(told, ended_well=True)}")
    return Played(recordings, None, tuple(said["otherwise"] or ()))


def _alone(made: Path) -> tuple[Path, ...]:
    """The one recording of a folder, in its place. Where it is not alone it stays where it is."""
    inside = list(made.iterdir()) if made.is_dir() else []
    if len(inside) != 1 or inside[0].suffix != ".h5":
        return ()
    (recording,) = inside
    moved = recording.rename(made.with_name(f"{made.name}.h5"))
    made.rmdir()
    return (moved,)


def failed(played: Played, made: Path) -> Played:
    """What there is of it stands apart: whoever looks through the others must not take it for one."""
    aside = made.parent / "failed"
    for left in (made, made.with_name(f"{made.name}.h5")):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
        elif left.exists():
            aside.mkdir(exist_ok=True)
            left.rename(aside / left.name)
    return replace(played, recordings=())


def why(told: str, *, ended_well: bool) -> str:
    """Of what was said, that which says why: our own last words where the rig ended well, else the rig's, unless an exception
    came behind that: then its last line."""
    lines = [_OF_TORCH.sub("", line) for line in told.splitlines()]
    lines = [line for line in lines if line.strip()]
    ours = [line.removeprefix(_OURS) for line in lines if line.startswith(_OURS)]
    others = [line for line in lines if not line.startswith(_OURS)]
    if ended_well:
        return ours[-1] if ours else "it ended without a word"
    last = max((i for i, line in enumerate(others) if line.startswith(_RIG)), default=len(others))
    said = others[last:]
    if said and not any("Traceback (most recent call last)" in line for line in said):
        return "\n".join(said).removeprefix(_RIG)
    return (others or ours or ["it ended without a word"])[-1]
