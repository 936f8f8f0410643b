"""fixtures/README.md, which `python -m specdiff.fixtures.make` writes: what a hand put into it must stand in make.py too."""

from __future__ import annotations

from specdiff.fixtures import make


def test_the_readme_is_what_make_writes() -> None:
    assert (make.HERE / "README.md").read_text(encoding="utf-8") == make.readme()


def test_it_says_what_each_folder_beside_it_holds() -> None:
    """A paragraph that is in neither of the two is gone from both."""
    said = make.readme()
    folders = {path.name for path in make.HERE.iterdir() if list(path.glob("*.h5"))}
    assert {"recordings", "served", "frozen"} <= folders
    assert [name for name in folders - {"recordings"} if f"`{name}/`" not in said] == []
