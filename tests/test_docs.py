"""Documentation that runs: examples work, commands exist with the options named, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from mppobs.cli.main import COMMANDS, load

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"mppobs [a-z-]+(?: [^`\n#|&]*)?")


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page that are in one of the languages."""
    for language, text in FENCE.findall(page.read_text()):
        if language in languages:
            yield text


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every `mppobs` command on a page, in shell blocks and in running text."""
    text = page.read_text()
    for block in blocks(page, "sh", "bash", "console"):
        for line in block.splitlines():
            if found := re.match(rf"(?:\$ )?(?:\.venv/bin/)?({COMMAND.pattern})", line):
                yield shlex.split(found[1])
    for found in re.finditer(rf"`({COMMAND.pattern})`", FENCE.sub("", text)):
        yield shlex.split(found[1])


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@cache
def help_of(*path: str) -> tuple[int, str]:
    """Return the status and the text of `mppobs PATH --help`."""
    command = [sys.executable, "-m", "mppobs.cli.main", *path, "--help"]
    env = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return done.returncode, done.stdout + done.stderr


@each_page
def test_python_examples_run(page: Path, tmp_path: Path) -> None:
    """The Python examples of a page run one after the other, as a reader would type them."""
    code = "\n".join(blocks(page, "python"))
    if not code:
        return
    script = tmp_path / "example.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPPOBS_DIR": str(tmp_path / "journals")}
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr


@each_page
def test_commands_exist_with_their_options(page: Path) -> None:
    """Every `mppobs` command that a page names answers `--help`, which knows each option that the page gives it."""
    for words in commands(page):
        path = words[1:2]
        if "COMMAND [ARGS]" in help_of(*path)[1]:
            path = words[1:3]
        status, text = help_of(*path)
        assert status == 0, f"{' '.join(words)}: {text}"
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in text, f"{' '.join(words)}: {option} is not in the help"


def test_every_command_is_documented() -> None:
    """The README or a page of the documentation names every command, and every command below one."""
    named = {tuple(words[:3]) for page in PAGES for words in commands(page)}
    for name in COMMANDS:
        assert any(words[1] == name for words in named), f"mppobs {name} is documented nowhere"
        loaded = load(name)
        below = loaded.registered_commands if isinstance(loaded, typer.Typer) else []
        for sub in (each.name or getattr(each.callback, "__name__", "") for each in below):
            assert ("mppobs", name, sub) in named, f"mppobs {name} {sub} is documented nowhere"


@each_page
def test_make_targets_exist(page: Path) -> None:
    """Every `make` target that a page names is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    text = page.read_text()
    named = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)

    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Links within the project name files that exist, and headings that they have."""
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_documentation_speaks_of_the_project_alone() -> None:
    """No page names a path of the machine on which it was written."""
    assert [page.name for page in PAGES if re.search(r"/root/|/home/", page.read_text())] == []


def test_changelog_knows_the_version() -> None:
    """The changelog has a section for what is not released yet, or for the version of the package."""
    version = re.search(r'__version__ = "(.*)"', (ROOT / "mppobs" / "version.py").read_text())
    text = (ROOT / "CHANGELOG.md").read_text()

    assert version
    assert "## [Unreleased]" in text or f"## [{version[1]}]" in text
