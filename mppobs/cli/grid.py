"""
Tables that keep their names whole on a narrow terminal.

What does not fit goes in this order: prose moves below its row, then the least useful columns are left out, and the
caption says which. A name stays on one line, and is shortened in the middle only where it is very long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.style import StyleType
from rich.table import Column, Table
from rich.text import Text

_NOTHING: Final = frozenset({"", "–"})
"""Prose that needs no line."""
LONGEST_NAME: Final = 60
"""Characters of a name that are shown whole."""
_GAP: Final = 2
_PROSE: Final = 36
"""Characters that prose needs beside its row; with fewer it goes below."""


class Grid(Table):
    """A table whose first column, which tells rows apart, is never left out. Texts are no markup."""

    def __init__(
        self, title: str, left: Sequence[str], right: Sequence[str], caption: str = "", *,
        less: Sequence[str] = (), prose: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Names stand left, figures right; `less` are the columns to go first, `prose` those that may be broken."""
        super().__init__(title=Text(title, "bold") if title else None, title_justify="left", box=None, pad_edge=False)
        self.caption, self.caption_justify = caption or None, "left"
        self._less = tuple(less)
        self._prose = frozenset(prose)
        self._left = frozenset(left)
        for name in left:
            broken = name in self._prose
            self.add_column(name, no_wrap=not broken, overflow="fold" if broken else "ellipsis")
        for name in right:
            self.add_column(name, justify="right", no_wrap=True)

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """Add a row."""
        cells = (Text(each) if isinstance(each, str) else each for each in renderables)
        super().add_row(*cells, style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        widths = {name_of(column): self._width(column, room) for column in self.columns}
        prose = [name for name in widths if name in self._prose]
        below = [] if self._need(widths, widths) <= room else prose
        kept = [name for name in widths if name not in below]
        chosen = kept[:1]
        for name in [*(name for name in kept[1:] if name not in self._less), *reversed(self._less)]:
            if name in kept and self._need([*chosen, name], widths) <= room:
                chosen.append(name)
        kept = [name for name in kept if name in chosen]
        yield from self._lines(kept, below, {name: min(widths[name], room) for name in kept}, room)

    def _width(self, column: Column, room: int) -> int:
        """Return how wide a column would be."""
        limit = min(LONGEST_NAME, room) if name_of(column) in self._left - self._prose else None
        return max([len(name_of(column)), *(shortened(cell, limit).cell_len for cell in _texts(column))])

    def _need(self, names: Iterable[str], widths: dict[str, int]) -> int:
        needs = [min(widths[name], _PROSE) if name in self._prose else widths[name] for name in names]
        return sum(needs) + _GAP * (len(needs) - 1)

    def _lines(self, kept: list[str], below: list[str], widths: dict[str, int], room: int) -> RenderResult:
        """Yield the table in parts where something stands below its rows, and in one part elsewhere."""
        columns = {name_of(column): list(_texts(column)) for column in self.columns}
        gone = [name for name in columns if name not in kept and name not in below]
        caption = "\n".join(
            part for part in (str(self.caption or ""), f"(wider terminal: {', '.join(gone)})" if gone else "") if part
        )
        count = len(self.rows)
        slices = [range(row, row + 1) for row in range(count)] if below and count else [range(count)]
        for place, rows in enumerate(slices):
            part = self._part(kept, {} if not below else widths, first=place == 0)
            for row in rows:
                limit = min(LONGEST_NAME, room)
                cells = [shortened(columns[name][row], None if name in self._prose else limit) for name in kept]
                part.add_row(*cells, style=self.rows[row].style)
            if place == len(slices) - 1 and not below:
                part.caption = Text(caption, "dim italic") if caption else None
            yield part
            for name in below if count else ():
                if columns[name][rows.start].plain not in _NOTHING:
                    yield Padding(columns[name][rows.start], (0, 0, 0, 4))
        if below and caption:
            yield Text(caption, "dim italic")

    def _part(self, kept: list[str], widths: dict[str, int], *, first: bool) -> Table:
        """Return an empty table of some columns, of fixed widths where they are given."""
        part = Table(
            title=self.title if first else None, title_justify="left", show_header=first and self.show_header,
            caption_justify="left", box=None, pad_edge=False, header_style=self.header_style,
        )  # fmt: skip
        for column in self.columns:
            if (name := name_of(column)) in kept:
                part.add_column(
                    name, justify=column.justify, no_wrap=column.no_wrap, overflow=column.overflow,
                    style=column.style, width=widths.get(name),
                )  # fmt: skip
        return part


def name_of(column: Column) -> str:
    """Return what a column is headed with."""
    return str(column.header)


def _texts(column: Column) -> Iterable[Text]:
    return (_text(cell) for cell in column.cells)


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def shortened(text: Text, limit: int | None) -> Text:
    """
    Return a text that keeps its beginning and its end where it is longer than `limit` characters.

    >>> shortened(Text("nightly-2026-01-02"), 9).plain, shortened(Text("nightly"), 9).plain
    ('nigh…1-02', 'nightly')
    """
    if limit is None or len(text) <= limit:
        return text
    head = (limit - 1) // 2
    tail = limit - 1 - head
    return Text.assemble(text[:head], "…", text[len(text) - tail :], style=text.style)
