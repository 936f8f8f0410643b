"""fixtures/README.md is written by `python -m specdiff.fixtures.make`.

A change made by hand must also be made in make.py.
"""

from __future__ import annotations

from specdiff.fixtures import make


def test_the_page_is_what_make_writes() -> None:
    assert (make.HERE / "README.md").read_text(encoding="utf-8") == make.readme()


def test_the_page_names_each_folder_of_recordings() -> None:
    """A paragraph that is in neither make.py nor the page would not be missed by the other test."""
    said = make.readme()
    folders = {path.name for path in make.HERE.iterdir() if list(path.glob("*.h5"))}
    assert {"recordings", "served", "frozen"} <= folders
    assert [name for name in folders - {"recordings"} if f"`{name}/`" not in said] == []
