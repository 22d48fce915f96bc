"""What the demo shows while jobs run: a live table of stages on a terminal, plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mppobs.executor.result import Progress, StageProgress
from mppobs.units import human_bytes, human_seconds

_BAR_WIDTH = 24


class Board:
    """
    The place on the console where progress is shown. Use it as a context manager, from one thread.

    On a terminal the stages of the running job are redrawn in place; elsewhere nothing is drawn until a line is final.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Take the lower end of the screen."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, title: str, progress: Progress) -> None:
        """Redraw the running job."""
        if self._live is not None:
            self._live.update(_job(title, progress))

    def wait(self, text: str) -> None:
        """Say what is waited for, until something else is shown."""
        if self._live is not None:
            self._live.update(Text(f"  {text} …", style="dim"))
        else:
            self.say(f"{text} …")


def _job(title: str, progress: Progress) -> RenderableType:
    """Return the running job: a heading, then its stages."""
    heading = Text.assemble(
        ("  " + title, "bold"),
        (f"   {human_seconds(progress.elapsed)} · {progress.workers} workers", "dim"),
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("  stage", no_wrap=True)
    table.add_column("", width=_BAR_WIDTH)
    for name in ("done", "running", "failed", "retries", "shuffled"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7)
    for stage in progress.stages:
        table.add_row(*_stage(stage))
    return Group(heading, table)


def _stage(stage: StageProgress) -> tuple[RenderableType, ...]:
    bar = ProgressBar(total=max(1, stage.planned), completed=stage.done, width=_BAR_WIDTH)
    return (
        f"  {stage.stage}",
        bar,
        f"{stage.done}/{stage.planned}",
        str(stage.running or ""),
        Text(str(stage.failed or ""), style="bold red"),
        Text(str(stage.retries or ""), style="yellow"),
        human_bytes(stage.shuffle_read + stage.shuffle_written),
    )
