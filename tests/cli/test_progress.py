"""What the demo shows while jobs run: redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from mppobs.cli.progress import Board
from mppobs.executor.result import Progress, StageProgress


def progress() -> Progress:
    """Return a job that is half done."""
    stages = (
        StageProgress("map", planned=8, done=8, attempts=9, retries=1, shuffle_written=2048),
        StageProgress("reduce", planned=4, done=1, running=2, failed=1, shuffle_read=512),
    )
    return Progress("job-1", "words", 2.5, stages, workers=2)


def shown(*, terminal: bool) -> str:
    """Return what a console got of one job with a line that stays."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with Board(console) as board:
        board.wait("making data")
        board.show("words, run 1", progress())
        board.say("words done")
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_terminal_shows_every_stage() -> None:
    """On a terminal each stage has its counts, its retries and the bytes that it exchanged."""
    text = shown(terminal=True)

    assert "words, run 1" in text
    assert "2 workers" in text
    map_row = next(line for line in text.splitlines() if line.lstrip().startswith("map"))
    assert "8/8" in map_row
    assert "2 KiB" in map_row
    reduce_row = next(line for line in text.splitlines() if line.lstrip().startswith("reduce"))
    assert "1/4" in reduce_row
    assert "512 B" in reduce_row


def test_file_gets_lines_that_stay_and_nothing_else() -> None:
    """Where nothing can be redrawn, only final lines and what is waited for are written, without escape codes."""
    assert shown(terminal=False) == "making data …\nwords done\n"


def test_failed_and_retried_shards_show_only_where_there_are_any() -> None:
    """A nought is left blank, so that trouble stands out."""
    lines = shown(terminal=True).splitlines()
    reduce_row = next(line for line in lines if line.lstrip().startswith("reduce"))

    assert reduce_row.split()[-5:] == ["1/4", "2", "1", "512", "B"]
