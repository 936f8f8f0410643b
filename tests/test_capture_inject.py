"""The injected sitecustomize.

It does nothing unless asked, runs the next sitecustomize, and never disturbs a process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import specdiff.recorders.capture
from children import python
from specdiff.recorders.capture import config
from specdiff.recorders.capture.choice import Choice
from specdiff.recorders.record import _environment

INJECT = Path(next(iter(specdiff.recorders.capture.__path__))) / "inject"
LOADED = "import sys; print(sorted(n for n in sys.modules if n.startswith('specdiff')))"


def environment(directory: Path, **more: str) -> dict[str, str]:
    asked = config.Config(directory, "run", ("command",), "0", 1)
    return _environment(asked, {**os.environ, **more})


def test_config_survives_the_environment(tmp_path: Path) -> None:
    asked = config.Config(
        tmp_path,
        "run",
        ("a b", "'c"),
        "1.2",
        3,
        steps=5,
        choice=Choice(7, ("x", "y"), "none", False),
    )
    assert config.from_env(asked.to_env()) == asked
    assert config.from_env({}) is None


_NO_COUNT: list[Any] = ["9", 0, -1, 1.5, True, [9], {}]
_NO_TIME: list[Any] = ["9", 0, -0.5, float("nan"), float("inf"), False, [9]]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("command", [["sglang", "serve"], []], ["sglang", None, [1]]),
        ("specdiff_version", ["1"], [1, None]),
        ("buffer_mb", [9], [None, *_NO_COUNT]),
        ("durability", ["step"], ["never", None, ["step"]]),
        ("paused", [True, False], [None, 1, "true"]),
        ("steps", [9, None], _NO_COUNT),
        ("seconds", [9, 0.5, None], _NO_TIME),
        ("ring_s", [9, 0.5, None], _NO_TIME),
        ("all_ranks", [True, False], [None, 1, "true"]),
        ("one_in", [16], [None, *_NO_COUNT]),
        ("only", [["a"], []], ["a", None, [1]]),
        ("rows", ["tail"], ["all", None, 1]),
        ("tokens", [True, False], [None, 0, "false"]),
    ],
)
def test_an_option_with_a_wrong_value_is_refused_by_name(
    name: str, right: list[Any], wrong: list[Any]
) -> None:
    """Anyone may have set the environment variable or written to the socket."""

    def made(value: Any) -> config.Config | None:
        in_choice = name in {field.name for field in dataclasses.fields(Choice)}
        options = {"choice": {name: value}} if in_choice else {name: value}
        return config.from_env({config.DIR: "x", config.OPTIONS: json.dumps(options)})

    assert None not in map(made, right)
    for value in wrong:
        with pytest.raises(ValueError, match=f"{name} is "):
            made(value)


@pytest.mark.parametrize("options", ["[]", "9", '{"choice": []}', '{"choice": null}', "{"])
def test_malformed_options_are_refused(options: str) -> None:
    with pytest.raises(ValueError):
        config.from_env({config.DIR: "x", config.OPTIONS: options})


def test_sitecustomize_installs_the_hook_and_little_else(tmp_path: Path) -> None:
    done = python(
        LOADED + "; print(type(sys.meta_path[0]).__module__, 'torch' in sys.modules)",
        env=environment(tmp_path),
    )
    assert done.stderr == ""
    assert "specdiff_recorders.capture.importhook False" in done.stdout
    assert "recorder" not in done.stdout.replace("specdiff_recorders", "")
    assert list(tmp_path.iterdir()) == []


def test_inert_without_a_recording(tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(INJECT)}
    done = python(LOADED, env=env)
    assert done.stdout.strip() == "[]"


def test_works_without_specdiff_or_any_package_installed(tmp_path: Path) -> None:
    """The recorder must not rely on anything that the server's environment has installed."""
    env = {**environment(tmp_path), "PYTHONNOUSERSITE": "1"}
    bare = [sys._base_executable, "-c", LOADED + "; import specdiff"]  # type: ignore[attr-defined]
    done = subprocess.run(bare, capture_output=True, text=True, env=env, check=False)
    assert "specdiff_recorders.capture.importhook" in done.stdout
    assert "No module named 'specdiff'" in done.stderr


def test_next_sitecustomize_runs_as_if_found_first(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nprint('theirs', __name__, __file__)\nMARK = 1\n"
    )
    env = environment(tmp_path, PYTHONPATH=str(tmp_path))
    done = python("import sitecustomize; print(sitecustomize.MARK)", env=env)
    assert done.stdout.split("\n") == [
        f"theirs sitecustomize {tmp_path / 'sitecustomize.py'}",
        "1",
        "",
    ]


def test_run_by_an_earlier_sitecustomize_it_runs_only_later_ones(tmp_path: Path) -> None:
    chain = (
        "import sys, importlib.util\nfrom importlib.machinery import PathFinder\n"
        "print('{name}')\n"
        "at = sys.path.index({folder!r})\n"
        "spec = PathFinder.find_spec('sitecustomize', sys.path[at + 1:])\n"
        "spec and spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
    )
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
        text = chain.format(name=name, folder=str(tmp_path / name))
        (tmp_path / name / "sitecustomize.py").write_text(text)
    env = environment(tmp_path)
    env["PYTHONPATH"] = f"{tmp_path / 'first'}:{INJECT}:{tmp_path / 'last'}"
    done = python(LOADED, env=env)
    assert done.stderr == ""
    assert done.stdout.startswith("first\nlast\n") and "importhook" in done.stdout


def test_a_broken_next_sitecustomize_is_reported_as_usual(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise RuntimeError('theirs is broken')\n")
    done = python("print('runs')", env=environment(tmp_path, PYTHONPATH=str(tmp_path)))
    assert done.stdout == "runs\n"
    assert "theirs is broken" in done.stderr


def test_existing_pythonpath_is_kept_and_an_empty_one_adds_nothing(tmp_path: Path) -> None:
    assert environment(tmp_path, PYTHONPATH="/a:/b")["PYTHONPATH"] == f"{INJECT}:/a:/b"
    assert environment(tmp_path, PYTHONPATH="")["PYTHONPATH"] == str(INJECT)


SCHEDULER = """
print("executed", __name__, flush=True)
"""
OTHER_FINDER = """
import sys
class Other:
    '''Asks all other finders, as post-import hooks do, and relies on them not to ask back.'''
    def find_spec(self, name, path=None, target=None):
        if name == "sglang.srt.managers.scheduler":
            for finder in sys.meta_path:
                if finder is not self and (spec := finder.find_spec(name, path, target)):
                    return spec
"""


@pytest.mark.parametrize("place", ["0", "1", "len(sys.meta_path)"])
def test_scheduler_module_is_found_once_beside_another_post_import_finder(
    tmp_path: Path, place: str
) -> None:
    package = tmp_path / "tree" / "sglang" / "srt" / "managers"
    package.mkdir(parents=True)
    (package / "scheduler.py").write_text(SCHEDULER)
    script = f"{OTHER_FINDER}\nsys.meta_path.insert({place}, Other())\nsys.path.insert(0, {str(tmp_path / 'tree')!r})\nimport sglang.srt.managers.scheduler"
    out = tmp_path / "out"
    out.mkdir()
    done = python(script, env=environment(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "executed sglang.srt.managers.scheduler\n"
    (note,) = out.iterdir()  # it attached and found that this is not sglang: every site is missing
    assert '"launch": ["sglang.srt.managers.scheduler:Scheduler.run_batch"]' in note.read_text()


def test_unwritable_folder_does_not_stop_the_server(tmp_path: Path) -> None:
    package = tmp_path / "sglang" / "srt" / "managers"
    package.mkdir(parents=True)
    (package / "scheduler.py").write_text(SCHEDULER)
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sglang.srt.managers.scheduler; print('runs')",
        env=environment(tmp_path / "is" / "not" / "there"),
    )
    assert done.stdout == "executed sglang.srt.managers.scheduler\nruns\n"
    assert "Traceback" not in done.stderr
