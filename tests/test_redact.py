"""Redaction: every path keeps its books value for value, and nothing about clients or the machine is left."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from children import on_demand
from lifting import bundled_recording
from recorded import RigRecorder
from specdiff.cli.inputs import bundled
from specdiff.cli.main import BROKEN, SAME, USAGE, run
from specdiff.recorders import hdf5
from specdiff.recorders.derived import Derived
from specdiff.recorders.pseudonyms import contents, pseudonymous
from specdiff.recorders.recording import TABLE_NAMES, Recording, columns
from specdiff.replay import spec
from specdiff.replay.columns.shared import Columns
from specdiff.replay.explain import Toggles
from specdiff.replay.laws.check import check
from specdiff.replay.ledger import Ledger
from specdiff.replay.quantity import Quantity
from specdiff.replay.verdict import ledger_of, replay
from strategies import recordings

RULES = ("observed", "old", "fixed")


def books(recording: Recording, path: str) -> tuple[Columns, Ledger]:
    columns = Columns(recording)
    return columns, ledger_of(columns, Toggles(columns), spec.parse(path))


def assert_same_books(recording: Recording, paths: Sequence[str]) -> None:
    """Assert that redaction changes no ledger, no law and no verdict, apart from request ids.

    The verdict compares the first path with the last.
    """
    redacted = pseudonymous(recording)
    named = dict(zip(recording.rids, redacted.rids, strict=True))
    for path in paths:
        (before, old), (after, new) = books(recording, path), books(redacted, path)
        assert (old.reasons, old.unknown) == (new.reasons, new.unknown)
        for one, other in zip(old.series, new.series, strict=True):
            assert one.quantity is other.quantity
            assert one.captured.equal(other.captured), (path, one.quantity)
            assert one.values[one.captured].equal(other.values[one.captured]), (path, one.quantity)
        assert _renamed(repr(check(before, old)), named) == repr(check(after, new))
    first, last = spec.parse(paths[0]), spec.parse(paths[-1])
    results = (replay(r, first, last) for r in (recording, redacted))
    one_said, other_said = (dataclasses.replace(r, run=recording.run) for r in results)
    assert _renamed(repr(one_said), named) == repr(other_said)


def _renamed(text: str, named: dict[str, str]) -> str:
    return re.sub(r"rid='([^']*)'", lambda found: f"rid='{named[found[1]]}'", text)


@pytest.mark.parametrize("name", sorted(path.stem for path in bundled().glob("*.h5")))
def test_redacting_a_bundled_recording_keeps_every_book(name: str) -> None:
    recording = bundled_recording(name)
    recorded = f"sglang=={recording.run.sglang_version}"
    assert_same_books(recording, [*RULES, recorded])
    assert contents(pseudonymous(recording)) == ()
    for table in TABLE_NAMES:
        old, new = getattr(recording, table), getattr(pseudonymous(recording), table)
        assert all(a is b for (_, a), (_, b) in zip(columns(old), columns(new), strict=True))


@pytest.mark.parametrize("scenario", ["grammar", *on_demand("finish-order")])
def test_redaction_keeps_which_requests_finish_and_why(scenario: str, record: RigRecorder) -> None:
    recording = record("0.5.23", scenario, 1)
    assert_same_books(recording, ["observed", "sglang==0.5.23"])
    _, ledger = books(pseudonymous(recording), "sglang==0.5.23")
    assert (ledger[Quantity.FINISH].values[:, 0] == 1).any()


VOCABULARY = 4096  # size for the rig's model
IDS = (-1, 0, 1, 2, 3, 273, VOCABULARY - 1, VOCABULARY, VOCABULARY + 1, VOCABULARY + 2, 2**31 - 1)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(IDS)), max_size=30))
def test_redaction_keeps_finishes_on_token_ids_at_the_edge_of_the_vocabulary(
    put: list[tuple[int, int]],
) -> None:
    """0.5.10 ends a request above the vocabulary's size, 0.5.23 at it."""
    recording = bundled_recording("0.5.12-stale-stop")
    tokens = recording.tokens.copy()
    for place, token in put:
        tokens[place % len(tokens)] = token
    changed = dataclasses.replace(recording, tokens=tokens)
    redacted = pseudonymous(changed)
    for path in ("sglang==0.5.10", "sglang==0.5.23"):
        (_, old), (_, new) = books(changed, path), books(redacted, path)
        assert old[Quantity.FINISH].values.equal(new[Quantity.FINISH].values)
    assert _unequal(tokens, redacted.tokens) == 0
    assert np.array_equal(_side(tokens), _side(redacted.tokens))


def _side(tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return by token whether it is negative, in the vocabulary, at its size or above it, as 0 to 3."""
    return np.searchsorted([-0.5, VOCABULARY - 0.5, VOCABULARY + 0.5], tokens)


def _unequal(before: NDArray[np.int32], after: NDArray[np.int32]) -> int:
    """Return how many pseudonyms there are beyond one for each id."""
    return len(np.unique(np.stack([before, after]), axis=1).T) - len(np.unique(before))


@settings(max_examples=8)
@given(recordings())
def test_redacting_any_recording_keeps_its_books_and_redacting_twice_changes_nothing(
    recording: Recording,
) -> None:
    assert_same_books(recording, RULES)
    once = pseudonymous(recording)
    twice = pseudonymous(once)
    assert contents(once) == () and once.details == twice.details and once.rids == twice.rids


def test_a_vocabulary_of_stop_tokens_only_can_be_redacted() -> None:
    recording = bundled_recording("0.5.12-stale-stop")
    raw = json.loads(recording.details[0])
    raw["stop"]["token_ids"] = [0, 1, 2]
    requests = dataclasses.replace(
        recording.requests, vocab_size=np.full_like(recording.requests.vocab_size, 3)
    )
    small = dataclasses.replace(
        recording,
        requests=requests,
        details=(json.dumps(raw),) * len(recording.details),
        tokens=recording.tokens % 3,
    )
    assert np.array_equal(pseudonymous(small).tokens, small.tokens)


SECRETS = ("alice", "/srv/secret", "10.11.12.13", "gpu7.corp.example", "weights-of-bob", "31337")


def test_no_secret_of_clients_or_machine_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = bundled_recording("0.5.15-session-hole")
    assert recording.stats is not None
    details = [json.loads(text) for text in recording.details]
    rids = [f"alice-{qid}" for qid in range(len(details))]
    for rid, raw in zip(rids, details, strict=True):
        raw |= {"rid": rid, "session_id": "alice's", "later": ["alice"], "note": "alice"}
        raw["stop"] |= {"token_ids": [31337], "words": ["alice"]}
    args = {**recording.run.server_args, "model_path": "weights-of-bob", "x": "gpu7.corp.example"}
    site = dataclasses.replace(recording.run.sites[0], target="/srv/secret/scheduler.py:X")
    planted = dataclasses.replace(
        recording,
        rids=tuple(rids),
        details=tuple(map(json.dumps, details)),
        damage="the file ends: see https://10.11.12.13/x and /srv/secret/y",
        stats=dataclasses.replace(recording.stats, first_exception="KeyError: 'alice'"),
        run=dataclasses.replace(
            recording.run, command=("x", "/srv/secret"), server_args=args, sites=(site,)
        ),
        tokens=np.where(recording.tokens == recording.tokens[0], 31337, recording.tokens),
    )
    source, target = tmp_path / "x.h5", tmp_path / "y.h5"
    hdf5.save(planted, source)
    assert run(["redact", str(source), "-o", str(target)]) == SAME
    redacted = hdf5.load(target)
    held = repr([getattr(redacted, name) for name in ("run", "stats", "damage", "rids", "details")])
    assert [secret for secret in SECRETS if secret in held] == []
    assert "KeyError" in held and not redacted.experts.any()
    assert len(redacted.experts) == len(recording.experts) > 0
    filler, *stops = np.unique(redacted.tokens)
    assert filler == 0 and len(stops) <= 2  # 31337 and EOS
    assert json.loads(redacted.details[0])["session_id"] == "session-0"
    (step,) = redacted.derived
    assert step.how == "redact" and len(step.source) == 64 and step.tokens_replaced

    capsys.readouterr()
    run(["info", str(source)])
    run(["info", str(target)])
    warned, said = re.findall(r"^contents +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert warned.startswith("warning: contains output tokens, ids and stop tokens")
    assert "routed" in warned
    assert said.startswith("redacted")


def test_info_does_not_call_the_stop_tokens_of_a_masked_recording_its_output(
    real_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After --no-tokens the only output tokens are those that can end their request."""
    recording = hdf5.load(real_recording)
    masked = Derived("no-tokens", "0" * 64, "", requests_left_out=0, tokens_replaced=True)
    hdf5.save(dataclasses.replace(recording, derived=(masked,)), path := tmp_path / "x.h5")
    assert run(["info", str(path)]) == SAME
    (said,) = re.findall(r"^contents +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert said.startswith("warning: contains the output tokens that can end a request, ids and")


def test_redact_overwrites_only_with_force(real_recording: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.h5"
    arguments = ["redact", str(real_recording), "-o", str(target)]
    assert run(arguments) == SAME
    assert run(arguments) == BROKEN
    assert run([*arguments, "--force"]) == SAME
    assert run(["redact", str(tmp_path), "-o", str(target)]) == USAGE


def test_redact_never_overwrites_its_source_under_any_name(
    real_recording: Path, tmp_path: Path
) -> None:
    """Tries its own name, a longer path and a link."""
    source = tmp_path / "a.h5"
    shutil.copy(real_recording, source)
    (tmp_path / "d").mkdir()
    (tmp_path / "link.h5").symlink_to(source)
    for name in (source, tmp_path / "d" / ".." / "a.h5", tmp_path / "link.h5"):
        assert run(["redact", str(source), "-o", str(name), "--force"]) == BROKEN
        assert source.read_bytes() == real_recording.read_bytes()
