"""[tool.specdiff]: known mismatches and silenced laws are shown but not judged; stale or misspelled entries are errors."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from lifting import bundled_recording
from specdiff.cli import project_settings
from specdiff.cli.inputs import bundled
from specdiff.cli.known_mismatches import judge_recording
from specdiff.cli.main import DIFFERS, NO_VERDICT, SAME, USAGE, run
from specdiff.recorders.errors import UsageError
from specdiff.replay import spec
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import Verdict, replay

RETRACT, STOP = (str(bundled() / f"0.5.11-stale-{what}.h5") for what in ("retract", "stop"))
KNOWN = """
[[tool.specdiff.known]]
recording = "0.5.11-stale-*.h5"
quantity = "kv_committed_len_settled"
old = "sglang==0.5.11"
fixed = "fixed"
reason = "stale results count, #23456"
"""
PATHS = ["--old", "sglang==0.5.11", "--fixed", "fixed"]
SETTLED = ["--quantity", "kv_committed_len_settled"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the pyproject.toml of a project. The current folder is two levels below it."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "pyproject.toml").write_text("[tool.other]\n")
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path / "pyproject.toml"


def test_a_known_mismatch_is_reported_but_not_judged(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", RETRACT, *PATHS, *SETTLED]) == DIFFERS
    project.write_text(KNOWN)
    capsys.readouterr()
    assert run(["replay", RETRACT, *PATHS, *SETTLED]) == SAME
    out = capsys.readouterr().out
    assert "known: kv_committed_len_settled: stale results count, #23456" in out
    assert "of them known" in out
    assert run(["replay", RETRACT, *PATHS, *SETTLED, "--format", "json"]) == SAME
    (result,) = json.loads(capsys.readouterr().out)
    known = result["quantities"]["kv_committed_len_settled"]["known"]
    assert known == {"reason": "stale results count, #23456", "until": None}


def test_the_documented_entry_covers_the_default_paths(project: Path) -> None:
    dflash = str(bundled() / "0.5.14-dflash.h5")
    assert run(["replay", dflash, "--old", "observed"]) == DIFFERS
    docs = (Path(__file__).parents[1] / "docs" / "config.md").read_text()
    (entry,) = re.findall(r"```toml\n(\[\[tool.specdiff.known\]\]\n.*?)```", docs, re.DOTALL)
    project.write_text(entry)
    assert run(["replay", dflash, "--old", "observed"]) == SAME


def test_an_entry_may_name_several_quantities_and_each_must_show(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SETTLED, "--quantity", "spec_verify_ct"]
    one = 'quantity = "kv_committed_len_settled"'
    project.write_text(KNOWN)
    assert run(["replay", RETRACT, *PATHS, *asked]) == DIFFERS
    project.write_text(
        KNOWN.replace(one, 'quantity = ["kv_committed_len_settled", "spec_verify_ct"]')
    )
    assert run(["replay", RETRACT, *PATHS, *asked]) == SAME
    capsys.readouterr()
    rows = str(bundled() / "0.5.11-experts-not-requested.h5")
    project.write_text(
        KNOWN.replace(one, 'quantity = ["routed_experts", "spec_histogram", "finish"]')
        .replace("0.5.11-stale-*.h5", "0.5.11-*.h5")
        .replace('"fixed"', '"sglang==0.5.23"')
    )
    assert run(["replay", rows, "--old", "sglang==0.5.11", "--fixed", "sglang==0.5.23"]) == USAGE
    err = capsys.readouterr().err
    assert "(finish of 0.5.11-*.h5) is stale" in err and "(routed_experts of" not in err


def test_mismatches_that_an_entry_does_not_cover_are_still_judged(project: Path) -> None:
    project.write_text(KNOWN)
    assert run(["replay", RETRACT, *PATHS]) == DIFFERS  # other quantities differ too
    assert run(["replay", RETRACT, "--old", "old", *SETTLED]) == DIFFERS
    other = str(bundled() / "0.5.10-stale-stop.h5")
    assert run(["replay", other, "--old", "sglang==0.5.11", *SETTLED]) == DIFFERS
    missing = [*SETTLED, "--quantity", "indexer_topk"]
    assert run(["replay", RETRACT, *PATHS, *missing]) == NO_VERDICT


def test_a_stale_entry_is_a_usage_error_that_names_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write_text(KNOWN.replace("sglang==0.5.11", "sglang==0.5.23"))
    assert run(["replay", RETRACT, "--old", "sglang==0.5.23", *SETTLED]) == USAGE
    err = capsys.readouterr().err
    assert f"{project}: [tool.specdiff] known[0]" in err and "is stale" in err and RETRACT in err
    # an entry for other paths is not stale
    assert run(["replay", RETRACT, "--old", "fixed", *SETTLED]) == SAME


@pytest.mark.parametrize(
    ("until", "old", "version"),
    [
        ("0.5.9", "observed", "0.5.11"),
        ("0.5.11", "observed", "0.5.11"),
        ("0.5.12", "sglang==0.5.23", "0.5.23"),
        ("0.5.11.post1", "observed", None),
        ("0.5.100", "sglang==0.5.23", None),
    ],
)
def test_an_entry_expires_with_the_recording_or_the_lifted_release(
    until: str, old: str, version: str | None
) -> None:
    recording, left = bundled_recording("0.5.11-stale-retract"), spec.parse(old)
    entry = project_settings.KnownMismatch(
        "x", ("*.h5",), Quantity.KV_COMMITTED_LEN, "why", path=old, until=until
    )
    judged = judge_recording([entry], Path(RETRACT), replay(recording, left, spec.FIXED))
    assert bool(judged.complaints) == (version is not None)
    assert bool(judged.excused) == (version is None)
    assert all(f"until {until}, and this is {version}" in one for one in judged.complaints)


def test_an_entry_applies_by_recording_path_side_and_quantity() -> None:
    recording = bundled_recording("0.5.11-stale-retract")
    result = replay(recording, spec.parse("observed"), spec.FIXED)

    def excuses(**changes: object) -> bool:
        entry = project_settings.KnownMismatch("x", ("*.h5",), Quantity.KV_COMMITTED_LEN, "why")
        judged = judge_recording([dataclasses.replace(entry, **changes)], Path(RETRACT), result)  # type: ignore[arg-type]
        assert not judged.complaints
        assert judged.verdict(named=False) is Verdict.DIFFERS  # seq_lens_sum still differs
        return bool(judged.excused)

    assert excuses(path="observed") and excuses(path="fixed") and not excuses(path="old")
    assert excuses(old="observed") and not excuses(old="fixed")
    assert excuses(fixed="fixed") and not excuses(fixed="observed")
    assert excuses(recording=("none.h5", "recordings/0.5.11-*.h5"))
    assert not excuses(recording=("0.5.11",)) and not excuses(recording=("elsewhere/*.h5",))
    # a path that was named `expected`
    named = replay(recording, spec.parse("observed"), spec.parse("expected"))
    for path in ("fixed", "expected"):
        entry = project_settings.KnownMismatch(
            "x", ("*.h5",), Quantity.KV_COMMITTED_LEN, "why", fixed=path
        )
        assert judge_recording([entry], Path(RETRACT), named).excused
    assert not excuses(fixed="expected")  # here `fixed` was named
    # not compared, so the entry is neither used nor stale
    assert not excuses(quantity=Quantity.FINISH)


def test_a_silenced_law_is_shown_but_not_judged(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(bundled() / "0.5.12-merge-filter.h5")
    assert run(["check", path]) == DIFFERS
    project.write_text('[tool.specdiff]\nsilence = ["sums"]\n')
    capsys.readouterr()
    assert run(["check", path]) == SAME
    assert "1 silenced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.specdiff]\nsilent = []", "no such key: 'silent'. Did you mean 'silence'?"),
        ('[tool.specdiff]\nsilence = ["sum"]', "no such law: 'sum'. Did you mean 'sums'?"),
        ('[tool.specdiff]\nsilence = "sums"', "expected a list of law names, found 'sums'"),
        ("[tool.specdiff]\nknown = 3", "expected a list of tables, found 3"),
        ("[tool]\nspecdiff = 3", "expected a table, found 3"),
        ("tool = 3", "[tool]: expected a table, found 3"),
        (
            KNOWN.replace('"0.5.11-stale-*.h5"', '[""]'),
            "expected a glob that matches files, found ['']",
        ),
        (
            KNOWN.replace("0.5.11-stale-*.h5", "."),
            "known[0] recording: expected a glob that matches files",
        ),
        (f"x = {'[' * 100_000}", "cannot be read as TOML"),
        (KNOWN.replace("reason", "raeson"), "no such key: 'raeson'. Did you mean 'reason'?"),
        (KNOWN.replace("stale results count, #23456", ""), "known[0]: missing reason"),
        (KNOWN + "path = 'old'", "known[0]: expected the paths of the mismatch"),
        (KNOWN.replace("_settled", "_setled"), "Did you mean 'kv_committed_len_settled'?"),
        (
            KNOWN.replace('"kv_committed_len_settled"', '["finish", "fnish", "spec_hist"]'),
            "known[0] quantity: no such quantity: 'fnish', 'spec_hist'. Did you mean 'finish'",
        ),
        (KNOWN.replace('"kv_committed_len_settled"', "[]"), "known[0]: missing quantity"),
        (KNOWN.replace('"kv_committed_len_settled"', "3"), "expected a name or a list of them"),
        (KNOWN.replace('"fixed"', '"fxied"'), "Did you mean 'fixed'?"),
        (KNOWN + "until = 'soon'", "expected a version such as 0.5.25, found 'soon'"),
        (KNOWN + "until = 3", "known[0] until: expected a string, found 3"),
        (KNOWN.replace('"0.5.11-stale-*.h5"', "[3]"), "expected a glob or a list of them"),
        ("[tool.specdiff", "cannot be read as TOML"),
    ],
)
def test_a_mistake_in_the_settings_is_named_by_file_and_key(
    project: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write_text(text)
    with pytest.raises(UsageError, match=r"pyproject\.toml") as raised:
        project_settings.load()
    assert says in str(raised.value)
    assert run(["replay", RETRACT]) == run(["check", RETRACT]) == USAGE
    assert says in capsys.readouterr().err


def test_the_nearest_pyproject_with_a_specdiff_table_counts(project: Path) -> None:
    project.write_text(KNOWN)
    assert [entry.quantity.value for entry in project_settings.load().known] == [SETTLED[1]]
    near = project.parent / "deep" / "pyproject.toml"
    near.write_text("[tool.specdiff]\n")
    assert project_settings.load() == project_settings.ProjectSettings()
