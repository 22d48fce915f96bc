"""The command as a whole: quick help, one line for an error, and the name of the extra that is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mppobs.cli import main
from mppobs.errors import ConfigError
from mppobs.version import __version__


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`mppobs --help` names each command with what it is for."""
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out

    for name, command in main.COMMANDS.items():
        assert name in text
        assert command.help.split(",")[0].split(":")[0][:30] in text


def test_help_loads_no_command() -> None:
    """`mppobs --help` loads none of the packages that only some commands need, so it works in a bare installation."""
    code = (
        "import sys, json\nfrom mppobs.cli import main\nmain.run(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    loaded = {name.split(".")[0] for name in json.loads(python(code).stderr)}

    assert loaded & {"numpy", "pyarrow", "fastapi", "pydantic", "httpx", "yaml", "duckdb"} == set()


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways of asking for the version print it alone."""
    assert main.run(arguments) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_unknown_command_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does not exist ends with 2 and names the nearest one."""
    assert main.run(["joobs"]) == 2
    assert "jobs" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, command in main.COMMANDS.items() if command.extra])
def test_missing_extra_is_named(name: str) -> None:
    """Where the packages of an extra are not installed, its commands end with 2 and say what to install."""
    missing = ["numpy", "pyarrow", "fastapi", "pydantic", "pydantic_settings", "httpx", "yaml", "duckdb", "uvicorn"]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n"
        f"from mppobs.cli import main\nsys.exit(main.run([{name!r}, '--help']))"
    )
    done = python(code)

    assert done.returncode == 2
    assert f"pip install 'mppobs[{main.COMMANDS[name].extra}]'" in done.stderr
    assert f"in a clone: pip install '.[{main.COMMANDS[name].extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_error_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that the caller can put right is told in one line, with status 2 and without a traceback."""

    def refuse(chosen: str) -> None:
        raise ConfigError(f"{chosen}: no such thing")

    monkeypatch.setattr(main, "_assemble", refuse)

    assert main.run(["jobs"]) == 2
    assert capsys.readouterr().err == "mppobs: jobs: no such thing\n"


def test_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of our own that is missing is a defect, and is raised as one."""
    monkeypatch.setitem(main.COMMANDS, "lost", main.Command("Lost.", "mppobs.cli.lost:lost"))
    with pytest.raises(ModuleNotFoundError, match=r"mppobs\.cli\.lost"):
        main.run(["lost"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["jobs", "--limit", "0"], "must be at least 1"), (["jobs", "--limit", "abc"], "must be a whole number")],
)
def test_bad_values_are_told_in_our_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, and no message of a library."""
    monkeypatch.setenv("COLUMNS", "200")
    assert main.run(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Input should" not in error


@pytest.mark.parametrize("arguments", [["job", "--help"], ["slo", "check", "--help"], ["journal", "dump", "--help"]])
def test_help_shows_no_type_beside_a_switch(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` takes nothing, so nothing stands beside it."""
    assert main.run(arguments) == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "<bool>" not in text
