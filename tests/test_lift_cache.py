"""The cache of releases: they are fetched once, verified, and lifted once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from lifting import lifted
from specdiff.cli.inputs import bundled
from specdiff.cli.main import NO_VERDICT, USAGE, run
from specdiff.recorders.errors import UsageError
from specdiff.replay.lift import cache, wheels
from specdiff.replay.lift.open import surface_of

RECORDING = str(bundled() / "0.5.23-random.h5")


def test_a_release_that_cannot_be_fetched_gives_no_verdict_and_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert run(["replay", RECORDING, "--old", "sglang==0.5.10"]) == NO_VERDICT
    assert str(tmp_path) in capsys.readouterr().err


def _index(at: str, cache_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip use only this package index."""
    monkeypatch.setenv("SPECDIFF_CACHE", str(cache_))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", at)
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_a_release_that_does_not_exist_is_a_usage_error_that_names_existing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The index has wheels for two versions of Python. pip lists only those for the version that it is asked for."""
    page = tmp_path / "simple" / "sglang" / "index.html"
    page.parent.mkdir(parents=True)
    there = ("0.5.10-py3-none-any", "0.5.98-cp312-cp312-manylinux_2_34_x86_64")
    page.write_text("".join(f"<a href='sglang-{one}.whl'>sglang-{one}.whl</a>" for one in there))
    _index((tmp_path / "simple").as_uri(), tmp_path / "cache", monkeypatch)
    assert run(["replay", RECORDING, "--old", "sglang==0.5.99"]) == USAGE
    said = capsys.readouterr().err
    assert "No matching distribution" in said and "Did you mean 0.5.98?" in said
    assert "the last are 0.5.10, 0.5.98" in said
    assert run(["replay", RECORDING, "--old", "sglang==9.5.9"]) == USAGE
    assert "Did you mean" not in capsys.readouterr().err  # not even near


def test_an_unreachable_index_gives_no_verdict_and_the_full_message_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That holds even if another source has some releases, because the index might have had more."""
    links = tmp_path / "links"
    links.mkdir()
    (links / "sglang-0.5.10-py3-none-any.whl").touch()
    for found in (None, str(links)):
        _index("http://127.0.0.1:1/simple", tmp_path / "cache", monkeypatch)
        if found:
            monkeypatch.setenv("PIP_FIND_LINKS", found)
        assert run(["replay", RECORDING, "--old", "sglang==0.5.99"]) == NO_VERDICT
        said = capsys.readouterr().err
        assert "127.0.0.1:1/simple" in said and "Connection refused" in said
        assert said.count("Retrying") == 1 and "No matching distribution" in said


def test_a_release_that_was_lifted_once_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheels.wheel_of("0.5.10")
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    folder = tmp_path / "sglang" / "wheels"
    folder.mkdir(parents=True)
    copy = folder / wheel.name
    shutil.copy(wheel, copy)
    first = surface_of(lifted("sglang==0.5.10"))
    assert wheels.recorded_hash(copy) == hashlib.sha256(wheel.read_bytes()).hexdigest()
    copy.write_bytes(b"")  # the surface is cached, so the wheel is not read again
    assert surface_of(lifted("sglang==0.5.10")) == first


def test_a_changed_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    folder = tmp_path / "sglang" / "wheels"
    folder.mkdir(parents=True)
    wheel = folder / "sglang-0.5.10-py3-none-any.whl"
    wheel.write_bytes(b"not what was fetched")
    wheel.with_name(f"{wheel.name}.sha256").write_text("0" * 64)
    with pytest.raises(UsageError, match="sha256"):
        surface_of(lifted("sglang==0.5.10"))
    wheel.with_name(f"{wheel.name}.sha256").unlink()
    with pytest.raises(UsageError, match="not a readable wheel"):
        surface_of(lifted("sglang==0.5.10"))


def test_a_damaged_cache_entry_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surface = surface_of(lifted("sglang==0.5.10"))
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    cache.save("key", surface)
    assert cache.load("key") == surface
    for damage in ("", "{}", "[1]", cache.kept("key").read_text()[:500]):
        cache.kept("key").write_text(damage)
        assert cache.load("key") is None
