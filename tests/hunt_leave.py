"""Write down what a hunt found: a scenario in TOML, its recording, and a text with the numbers."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from arena import switches
from children import rig, specdiff
from hunt_judge import HuntJudge, Wrong
from hunt_pack import FoundBug
from specdiff.fixtures.rig.release import find_release
from specdiff.fixtures.rig.written import write_scenario
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording


def leave(found: FoundBug, judge: HuntJudge, release: str, name: str, out: Path) -> str:
    """Write the files and return the text.

    If a fresh process shows the same when it plays the TOML, the recording is from there.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{release}-{name}.toml"
    path.write_text(
        "".join(f"# {line}\n" for line in str(found.wrong).splitlines())
        + f"# Found by the hunt on sglang {release}.\n\n"
        + write_scenario(replace(found.scenario, sglang=release))
    )
    recording, again = _play_again(path, release, judge)
    same = again is not None and again.what == found.wrong.what
    recording = recording if same else found.recording
    if recording is not None:
        hdf5.save(recording, path.with_suffix(".h5"), force=True)
    checks = " ".join(f"{name}={value}" for name, value in switches(find_release(release)).items())
    text = (
        f"{found.wrong}\n"
        f"{len(found.scenario.requests)} requests; a fresh process that plays it shows "
        f"{'the same' if same else again or 'nothing wrong'}:\n"
        f"{checks} python -m specdiff.fixtures.rig --sglang {release} --scenario {path}"
    )
    path.with_suffix(".txt").write_text(text + "\n")
    return f"{text}\nwritten to {path}, .txt{' and .h5' if recording else ''}"


def _play_again(
    path: Path, release: str, judge: HuntJudge
) -> tuple[Recording | None, Wrong | None]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "again"
        checks = switches(find_release(release))
        done = specdiff("record", "-o", out, "--", *rig(release, str(path)), env=checks)
        made = list(out.glob("*.h5"))
        recording = hdf5.load(made[0]) if made else None
    if recording and (wrong := judge.judge(recording)):
        return recording, wrong
    said = done.stderr.strip().splitlines()
    if any("answers are wrong" in line for line in said):
        return recording, Wrong("the clients", said[-1])
    if done.returncode:
        return recording, Wrong("the scheduler stopped", said[-1] if said else "")
    return recording, None
