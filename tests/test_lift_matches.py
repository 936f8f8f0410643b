"""`specdiff paths` matches each release with the sets of fixes once, and again when an input of that has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from specdiff.cli.inputs import bundled
from specdiff.recorders.errors import RecordingError
from specdiff.replay.columns.shared import Columns
from specdiff.replay.lift import catalog, match, matches, wheels
from specdiff.replay.lift.link import Program
from specdiff.replay.lift.matches import Match, Matches
from specdiff.replay.lift.open import surface_of
from specdiff.replay.quantity import Quantity
from specdiff.replay.spec import Lifted, Origin

RECORDINGS = [bundled() / f"{name}.h5" for name in ("0.5.12-stale-stop", "0.5.12-stale-retract")]
VERSIONS = ("0.5.10", "0.5.12")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache with the wheels of two releases."""
    found = [wheels.wheel_of(version) for version in VERSIONS]
    folder = tmp_path / "sglang" / "wheels"
    folder.mkdir(parents=True)
    for wheel in found:
        (folder / wheel.name).symlink_to(wheel)
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the programs that were matched, one entry for each computation."""
    names: list[str] = []
    real: Callable[[Sequence[Columns], Program], Match] = match.match

    def counted(recordings: Sequence[Columns], program: Program) -> Match:
        names.append(program.name)
        return real(recordings, program)

    monkeypatch.setattr(match, "match", counted)
    return names


def listed(recordings: Sequence[Path]) -> dict[str, dict[str, str]]:
    return {known.version: known.equals for known in catalog.releases(recordings)}


def test_a_second_call_computes_nothing_and_gives_the_same_result(
    cache: Path, computed: list[str]
) -> None:
    first = listed(RECORDINGS)
    assert first.keys() == set(VERSIONS) and first["0.5.10"]["EAGLE"].startswith("old =")
    assert computed == [f"sglang {version}" for version in VERSIONS]
    assert listed(RECORDINGS) == first
    assert len(computed) == len(VERSIONS)


def test_matches_are_computed_again_for_other_recordings(
    cache: Path, computed: list[str], tmp_path: Path
) -> None:
    listed(RECORDINGS)
    one = listed(RECORDINGS[:1])
    assert len(computed) == 4
    other = tmp_path / "other.h5"  # the contents decide, not the name
    other.write_bytes(RECORDINGS[0].read_bytes())
    assert listed([other]) == one
    assert len(computed) == 4
    other.write_bytes(RECORDINGS[1].read_bytes())
    listed([other])
    assert len(computed) == 6


def test_matches_are_computed_again_after_a_change_of_the_engine(
    cache: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listed(RECORDINGS)
    monkeypatch.setattr(matches, "_engine", lambda: "another")
    assert listed(RECORDINGS) == first
    assert len(computed) == 4


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        "[1]",
        '{"EAGLE": {"sets": [[1]]',
        '{"EAGLE": {"sets": 1, "unmatched": [], "num_compared": 1}}',
    ],
)
def test_a_damaged_cache_entry_is_computed_and_written_again(
    cache: Path, computed: list[str], damage: str
) -> None:
    first = listed(RECORDINGS)
    kept = sorted((cache / "matched").iterdir())
    before = [path.read_bytes() for path in kept]
    for path in kept:
        path.write_text(damage)
    assert listed(RECORDINGS) == first
    assert len(computed) == 4
    assert [path.read_bytes() for path in kept] == before


def test_a_saved_match_is_loaded_equal(cache: Path) -> None:
    surface = surface_of(Lifted("sglang==0.5.10", Origin.RELEASE, "0.5.10"))
    kept = Matches(RECORDINGS)
    for found in (
        Match((frozenset(), frozenset({22651, 26126})), (), 7),
        Match((), (Quantity.KV_COMMITTED_LEN, Quantity.FINISH), 0),
    ):
        kept.save(surface, {"EAGLE": found, "DFLASH": found})
        assert kept.load(surface) == {"EAGLE": found, "DFLASH": found}


def test_an_unreadable_recording_is_an_error_that_names_it(cache: Path) -> None:
    broken = cache / "broken.h5"
    broken.write_bytes(b"no recording")
    with pytest.raises(RecordingError, match=r"broken\.h5"):
        listed([broken])


def test_cached_matches_are_listed_without_importing_torch(cache: Path) -> None:
    """The import would take longer than everything else."""
    listed(RECORDINGS)
    script = (
        "import sys; from pathlib import Path; from specdiff.replay.lift import catalog\n"
        "print(len(list(catalog.releases([Path(name) for name in sys.argv[1:]]))), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, RECORDINGS)],
        env={**os.environ, "SPECDIFF_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "False"]
