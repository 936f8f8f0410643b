"""Everything that the Markdown pages name exists: links, anchors, commands, options, make targets, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from specdiff.cli.main import cli, run

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "fixtures" / "README.md"])
FOLDERS = {"cli", "docs", "fixtures", "recorders", "replay", "tests"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def parts_of(page: Path) -> Iterator[Token]:
    """Yield the tokens of a parsed page: its blocks and their inline parts."""
    for token in MarkdownIt().enable("table").parse(text_of(page)):
        yield token
        yield from token.children or ()


def code_in(page: Path) -> Iterator[str]:
    """Yield each line of a code block and each inline piece of code."""
    for token in parts_of(page):
        if token.type in ("fence", "code_block"):
            yield from token.content.replace("\\\n", " ").splitlines()
        elif token.type == "code_inline":
            yield token.content


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings as GitHub makes them.

    They are in lower case, without punctuation, with hyphens for spaces. A repeated one gets a number.
    """
    found: dict[str, int] = {}
    tokens = MarkdownIt().parse(text_of(page))
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(token.content for token in heading.children or ()).lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            found[anchor] = found.get(anchor, -1) + 1
    return {f"{name}-{i}" if i else name for name, last in found.items() for i in range(last + 1)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = [str(one.attrs["href"]) for one in parts_of(page) if one.type == "link_open"]
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands_in(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `specdiff` command of a page, up to a comment, a pipe or another command."""
    for code in code_in(page):
        for part in re.split(r"&&|;|\||\s#|\$\(", code):
            words = part.replace("\u2026", "...").split()
            if "specdiff" in words[:1] or words[:3] == ["python", "-m", "specdiff.cli"]:
                yield words[3 if words[0] == "python" else 1 :]


def options_of(words: list[str]) -> Iterator[str]:
    """Yield the options that specdiff gets. What follows `--` belongs to another program."""
    for word in words:
        if word == "--":
            return
        if re.match(r"--?[a-zA-Z]", word):
            yield re.split(r"[=,/\]]", word)[0]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_options_exist(page: Path) -> None:
    group = click.Context(cli)
    for words in commands_in(page):
        if not words or words[0] in {"...", "COMMAND"} or words[0].startswith("-"):
            continue
        command = cli.get_command(group, words[0])
        assert command is not None, words
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        known |= {"-h", "--help"}
        assert set(options_of(words)) <= known, words


def test_every_command_is_in_the_readme() -> None:
    named = {words[0] for words in commands_in(ROOT / "README.md") if words}
    assert named >= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_every_option_has_a_help_text(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for code in code_in(page):
        if code.startswith("make "):
            assert {word for word in code.split()[1:2] if "=" not in word} <= targets, code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page: Path) -> None:
    """A path counts as a file of this repository if it begins with one of its folders and has no placeholder."""
    for code in code_in(page):
        for word in re.split(r"[\s'\"(),:;]+", code):
            if re.fullmatch(r"(\w+)/[\w./-]+\.\w+", word) and word.split("/")[0] in FOLDERS:
                assert (ROOT / word).exists() or (page.parent / word).exists(), word


def outputs_in(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each command that a page shows with its output (`$ specdiff ...`), and the lines shown."""
    for token in parts_of(page):
        if token.type in ("fence", "code_block") and token.content.startswith("$ specdiff "):
            command, *lines = token.content.splitlines()
            yield command.removeprefix("$ specdiff "), [line for line in lines if line.strip()]


SHOWN = [(command, lines) for page in PAGES for command, lines in outputs_in(page)]


@pytest.mark.parametrize(
    ("command", "lines"), SHOWN, ids=[command.split()[0] for command, _ in SHOWN]
)
def test_shown_output_is_what_is_printed(
    command: str,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pages may leave out lines anywhere. The lines that they show are printed, in this order."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    run(command.split())
    printed = iter([line.split() for line in capsys.readouterr().out.splitlines()])
    for line in lines:
        assert line.split() in printed, line


def test_some_output_is_shown() -> None:
    assert {command.split()[0] for command, _ in SHOWN} >= {"replay", "bisect", "shrink"}
