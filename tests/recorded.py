"""Recordings made live during this test session, from sglang's real scheduler on this CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from children import rig, specdiff
from specdiff.recorders import hdf5
from specdiff.recorders.recording import Recording
from specdiff.recorders.schema import Mode


@dataclass
class RigRecorder:
    """Runs `specdiff record -- rig`, once per (release, scenario, seed) and test session.

    A release may be a source tree.
    """

    folder: Path
    options: tuple[str, ...] = ()  # of `specdiff record`
    made: dict[tuple[str, str, int, tuple[str, ...]], list[Path]] = field(default_factory=dict)

    def path(self, release: str, scenario: str, seed: int, *flags: str) -> Path:
        (path,) = self.paths(release, scenario, seed, *flags)
        return path

    def paths(self, release: str, scenario: str, seed: int, *flags: str) -> list[Path]:
        """Return one path per scheduler."""
        key = (release, scenario, seed, flags)
        if key not in self.made:
            self.made[key] = self._record(*key)
        return self.made[key]

    def ranks(self, release: str, scenario: str, seed: int, *flags: str) -> list[Recording]:
        """Return the recordings of schedulers that stepped together, by rank."""
        recordings = map(hdf5.load, self.paths(release, scenario, seed, *flags))
        return sorted(recordings, key=lambda recording: recording.run.tp_rank)

    def __call__(self, release: str, scenario: str, seed: int, *flags: str) -> Recording:
        return hdf5.load(self.path(release, scenario, seed, *flags))

    def _record(self, release: str, scenario: str, seed: int, flags: tuple[str, ...]) -> list[Path]:
        folder = self.folder / "-".join(
            (Path(release).name, Path(scenario).stem, str(seed), *flags, *self.options)
        )
        seeds = () if scenario.endswith((".toml", ".h5")) else ("--seed", str(seed))
        command = rig(release, scenario, *seeds, *flags)
        done = specdiff("record", *self.options, "-o", folder, "--", *command)
        assert done.returncode == 0, f"{release} {scenario} {seed}: {done.stderr[-2000:]}"
        paths = sorted(folder.glob("*.h5"))
        assert sorted(done.stdout.splitlines()) == list(map(str, paths))
        return paths


def record(directory: Path, command: list[str]) -> tuple[Recording, str]:
    """Return the only recording of a command that succeeds, and its stderr."""
    done = specdiff("record", "-o", directory, "--", *command)
    assert done.returncode == 0, done.stderr
    (path,) = done.stdout.split()
    assert [entry.name for entry in directory.iterdir()] == [Path(path).name]
    return hdf5.load(Path(path)), done.stderr


def check_pairing(recording: Recording) -> None:
    """Check that every launch has one result, in order, with the requests that it launched."""
    launches, results = recording.launches, recording.results
    assert results.launch.tolist() == launches.launch.tolist()
    assert results.mode.tolist() == launches.mode.tolist()
    assert recording.result_rows.qid.tolist() == recording.launch_rows.qid.tolist()
    assert set(launches.mode.tolist()) == {Mode.EXTEND, Mode.DECODE}
