"""`mppobs journal` shows what a journal holds, and says what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from mppobs.cli.journal import app
from mppobs.cli.main import run
from mppobs.clock import ManualClock
from mppobs.journal.examine import examine, journals_at
from mppobs.journal.format import HeadWord
from mppobs.journal.reader import scan
from mppobs.journal.seal import seal
from tests.journal.journals import START, HandWritten, attempts, end, opening, slot


def call(*arguments: object) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def journal(tmp_path: Path) -> HandWritten:
    """Return a journal of two segments that its owner closed."""
    made = HandWritten(tmp_path)
    made.write_head(dropped={HeadWord.DROPPED_ATTEMPTS + 1: 2})
    made.write_segment(0, [*opening(), *attempts(5)], full=True)
    made.write_segment(1, [*opening(), *attempts(2, first=5), end()])
    return made


def test_dump_prints_every_record(journal: HandWritten) -> None:
    """One line per record, in order, with its place and what it says, its context by name."""
    result = call("dump", journal.directory)

    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert len(lines) == 2 * 8 + 7 + 1
    assert lines[0].split() == ["0", "96", "text", "text='w1'", "text_id=1"]
    assert "attempt   nightly/map nightly-1 context_id=1 shard_key=0 attempt=0 outcome=success" in lines[8]
    assert lines[-1].split()[:3] == ["1", str(96 * 11), "end"]


def test_dump_picks_kinds_and_stops(journal: HandWritten) -> None:
    """Only records of a kind, and no more than asked for; as JSON with the place of each."""
    result = call("dump", journal.directory, "--kind", "attempt", "--limit", "6", "--json")

    found = [json.loads(line) for line in result.output.splitlines()]
    assert [each["shard_key"] for each in found] == [0, 1, 2, 3, 4, 5]
    assert {each["kind"] for each in found} == {"attempt"}
    assert (found[5]["journal"], found[5]["segment"], found[5]["record"], found[5]["offset"]) == (
        journal.journal, 1, 8, 864,
    )  # fmt: skip


def test_a_kind_that_is_none(journal: HandWritten, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong word is answered with the nearest right one."""
    assert run(["journal", "dump", str(journal.directory), "--kind", "atempt"]) == 2
    assert "did you mean 'attempt'?" in capsys.readouterr().err


def test_one_journal_or_one_segment(journal: HandWritten) -> None:
    """A path may name the directory, the journal by its head, or one segment."""
    HandWritten(journal.directory).write_segment(0, [*opening(), end()])
    assert len(json.loads(call("verify", journal.directory, "--json").output)) == 2

    (whole,) = json.loads(call("verify", journal.head, "--json").output)
    (part,) = json.loads(call("verify", journal.path(1), "--json").output)

    assert whole["journal"] == part["journal"] == journal.journal
    assert (whole["records"]["attempt"], part["records"]["attempt"]) == (7, 2)


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path without a journal is an error that names it; an empty directory holds none."""
    assert run(["journal", "verify", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    assert run(["journal", "verify", str(tmp_path)]) == 0


def test_verify_of_a_sound_journal(journal: HandWritten) -> None:
    """What is sound is said in figures, and the command succeeds."""
    result = call("verify", journal.directory, "--json")

    (found,) = json.loads(result.output)
    assert result.exit_code == 0
    assert found == {
        "journal": journal.journal,
        "owner": "dead",
        "end": "closed",
        "records": {"attempt": 7, "context": 2, "end": 1, "pad": 604, "text": 12, "worker": 2},
        "incomplete": 0,
        "dropped": {"success": 2, "other": 0},
        "problems": [],
    }
    text = call("verify", journal.directory).output
    assert journal.journal[:12] in text
    assert "7 attempt" in text


def test_owners_and_ends(journal: HandWritten) -> None:
    """Live, dead and shipped, open, closed and sealed are told apart."""
    journal.write_head({5: slot(START)})
    journal.write_segment(1, [*opening(), *attempts(2, first=5)])
    with journal.owned():
        assert [(each.owner, each.end) for each in map(examine, scan(journal.directory))] == [("alive", "open")]
    assert [(each.owner, each.end) for each in map(examine, scan(journal.directory))] == [("dead", "open")]
    seal(scan(journal.directory)[0], clock=ManualClock(START))
    (found,) = map(examine, scan(journal.directory))
    assert (found.owner, found.end, found.kinds["attempt"], found.problems) == ("dead", "sealed", 8, [])
    journal.head.unlink()
    journal.lock.unlink()
    os.truncate(journal.path(1), 960)
    (found,) = map(examine, scan(journal.directory))
    assert (found.owner, found.end, found.problems) == ("elsewhere", "open", [])


def test_a_record_torn_by_a_kill_is_no_damage(journal: HandWritten) -> None:
    """One record that was not finished, with nothing behind it, is counted and that is all."""
    journal.texts.clear()
    data = journal.encode([*opening(), *attempts(3)])
    journal.write_segment(1, data[:-40])

    result = call("verify", journal.directory, "--json")

    (found,) = json.loads(result.output)
    assert (result.exit_code, found["incomplete"], found["problems"]) == (0, 1, [])


DAMAGES = {
    "hole": ("a complete record behind", 96 * 12),
    "nonsense": ("is no attempt outcome", 96 * 10),
    "header": ("not a segment", 0),
    "short": ("cut short by 30536 bytes", 35000),
    "missing": ("segment 1 is missing", 0),
    "head": ("not the head", 0),
    "foreign": ("the head of journal", 16),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_with_its_place(journal: HandWritten, damage: str) -> None:
    """What is wrong is named with the byte where it is, and the command fails."""
    content = bytearray(journal.path(1).read_bytes())
    if damage == "hole":
        content[96 * 11 : 96 * 12] = bytes(96)
        content[96 * 12 : 96 * 13] = content[96 * 9 : 96 * 10]
    elif damage == "nonsense":
        content[96 * 10 + 1] = 77
    elif damage == "header":
        content[:8] = bytes(8)
    journal.path(1).write_bytes(content[:35000] if damage == "short" else content)
    if damage == "missing":
        journal.path(1).unlink()
        journal.write_segment(2, [*opening(), end()])
    elif damage == "head":
        journal.head.write_bytes(bytes(8192))
    elif damage == "foreign":
        head = bytearray(journal.head.read_bytes())
        head[16:32] = bytes(16)
        journal.head.write_bytes(head)

    result = call("verify", journal.directory, "--json")

    (found,) = json.loads(result.output)
    what, offset = DAMAGES[damage]
    assert result.exit_code == 1
    assert what in found["problems"][0]["what"]
    assert found["problems"][0]["offset"] == offset
    assert what.split()[0] in call("verify", journal.directory).output


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_can_be_examined(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever was done to the files, examining them says something and never fails."""
    made = HandWritten(tmp_path_factory.mktemp("noise"))
    made.write_head()
    made.write_segment(0, [*opening(), *attempts(5), end()])
    path = data.draw(st.sampled_from([made.head, made.path(0)]))
    content = bytearray(path.read_bytes())
    noise = data.draw(st.binary(min_size=1, max_size=1000))
    at = data.draw(st.integers(0, 3000))
    content[at : at + len(noise)] = noise
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    found = [examine(files) for files in journals_at(made.directory)]
    assert [each.journal for each in found] == [made.journal]
    assert found[0].problems or found[0].incomplete or found[0].kinds


def test_verify_fits_a_narrow_terminal(journal: HandWritten, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal and its end stay on one line; what it holds goes below it."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("verify", journal.directory).output.splitlines()

    assert max(map(len, lines)) <= 60
    assert any(line.startswith(f"{journal.journal[:12]}  ") for line in lines)
    assert any(line.startswith("    ") and "7 attempt" in line for line in lines)
