"""Releases in the cache: fetched once, verified, and lifted once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from lifting import lifted
from specdiff.cli.inputs import bundled
from specdiff.cli.main import NO_VERDICT, run
from specdiff.recorders.errors import UsageError
from specdiff.replay.lift import cache, wheels
from specdiff.replay.lift.open import surface_of

RECORDING = str(bundled() / "0.5.23-random.h5")


def test_a_release_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert run(["replay", RECORDING, "--old", "sglang==0.5.10"]) == NO_VERDICT
    assert str(tmp_path) in capsys.readouterr().err


def test_a_cached_release_needs_no_network_and_no_wheel_is_opened(
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
    copy.write_bytes(b"")  # the surface is kept: the wheel is not read again
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


def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surface = surface_of(lifted("sglang==0.5.10"))
    monkeypatch.setenv("SPECDIFF_CACHE", str(tmp_path))
    cache.save("key", surface)
    assert cache.load("key") == surface
    for damage in ("", "{}", "[1]", cache.kept("key").read_text()[:500]):
        cache.kept("key").write_text(damage)
        assert cache.load("key") is None
