"""Function hashes: they see only changes with an effect, and tell the books of releases apart."""

from __future__ import annotations

import ast
import importlib
import textwrap
from pathlib import Path

import pytest

from children import VERSIONS
from specdiff.fixtures.rig.release import find_release
from specdiff.recorders.capture.books import BOOKS, UNKNOWN, books_release
from specdiff.recorders.capture.fingerprint import function_hash, hash_in_file, node_hash
from specdiff.recorders.capture.sites import PREPARE_FUNCTIONS

PLAIN = """
def commit(req, accept):
    n = accept - 1
    req.kv_committed_len += n
    return f"{req.rid}: {n}"
"""

SAME = {
    "a docstring": 'def commit(req, accept):\n    """Why."""\n' + PLAIN.split("\n", 2)[2],
    "a comment": PLAIN.replace("n = accept - 1", "n = accept - 1  # minus the bonus"),
    "annotations": PLAIN.replace("(req, accept)", "(req: Req, accept: int) -> str").replace(
        "n =", "n: int ="
    ),
    "a bare annotation": PLAIN.replace("    n =", "    req: Req\n    n ="),
    "a decorator": "@staticmethod" + PLAIN,
    "parentheses": PLAIN.replace("accept - 1", "(accept - 1)"),
    "a split f-string": PLAIN.replace('f"{req.rid}: {n}"', 'f"{req.rid}" ": " f"{n}"'),
}
OTHER = {
    "a constant": PLAIN.replace("- 1", "- 2"),
    "an operator": PLAIN.replace("+=", "-="),
    "an attribute": PLAIN.replace("kv_committed_len", "kv_allocated_len"),
    "a literal of an f-string": PLAIN.replace(": {n}", ":{n}"),
    "a missing statement": PLAIN.replace("    req.kv_committed_len += n\n", ""),
    "a default": PLAIN.replace("accept)", "accept=1)"),
}


def hash_of(source: str) -> str:
    return node_hash(ast.parse(textwrap.dedent(source)).body[0])


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_the_hash_ignores_what_has_no_effect(source: str) -> None:
    assert hash_of(source) == hash_of(PLAIN)


@pytest.mark.parametrize("source", OTHER.values(), ids=OTHER)
def test_the_hash_sees_what_has_an_effect(source: str) -> None:
    assert hash_of(source) != hash_of(PLAIN)


def test_the_hash_does_not_depend_on_the_python_version() -> None:
    """A pinned hash, computed with 3.10 to 3.13.

    These differ in `ast.dump` and in how they split f-strings.
    """
    assert hash_of(PLAIN) == "4398d665734d9f55"


def test_two_hashes_identify_the_release_of_the_books() -> None:
    resolve, prepare = BOOKS["0.5.21"]
    assert books_release(resolve, prepare, "0.5.21") == "0.5.21"
    assert (
        books_release(resolve, prepare, "0.5.20.dev7+gabc") == "0.5.20"
    )  # the oldest that has both
    assert books_release(resolve, BOOKS["0.5.12"][1], "0.5.21") == UNKNOWN
    assert books_release(None, prepare, "0.5.21") == UNKNOWN


RESOLVE_FUNCTIONS = (
    "managers/scheduler_output_processor_mixin.py:SchedulerOutputProcessorMixin._resolve_spec_overlap_token_ids",
    "managers/scheduler_output_processor_mixin.py:SchedulerOutputProcessorMixin._resolve_spec_overlap_tokens",
    "managers/scheduler_components/batch_result_processor.py:SchedulerBatchResultProcessor._resolve_spec_v2_tokens",
)


@pytest.mark.live
@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_of_books_has_the_hashes_of_the_release(version: str) -> None:
    """If this fails for a new release, the left side is the line to add."""
    srt = find_release(version).root / "sglang" / "srt"

    def hashes(places: tuple[str, ...]) -> list[str]:
        split = (place.split(":") for place in places)
        return [known for path, name in split if (known := hash_in_file(srt / path, name))]

    assert (*hashes(RESOLVE_FUNCTIONS), *hashes(PREPARE_FUNCTIONS)) == BOOKS[version]


def test_a_loaded_function_is_hashed_as_loaded_even_if_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upgrading sglang under a running server changes the files on disk, not the server's books."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loaded_once.py").write_text("def books():\n    return 1\n")
    loaded = importlib.import_module("loaded_once").books
    first = function_hash(loaded)
    (tmp_path / "loaded_once.py").write_text("def books():\n    return 1 + 1\n")
    assert function_hash(loaded) == first is not None
