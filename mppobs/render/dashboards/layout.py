"""Places on Grafana's grid of 24 columns: panels are put down in order, each as high up and as far left as it fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Place:
    """A rectangle of the grid."""

    x: int
    y: int
    width: int
    height: int

    def overlaps(self, other: Place) -> bool:
        """
        Return whether two rectangles share a cell.

        >>> Place(0, 0, 12, 4).overlaps(Place(11, 3, 1, 1)), Place(0, 0, 12, 4).overlaps(Place(12, 0, 12, 4))
        (True, False)
        """
        across = self.x < other.x + other.width and other.x < self.x + self.width
        down = self.y < other.y + other.height and other.y < self.y + self.height
        return across and down

    def to_json_data(self) -> dict[str, int]:
        """Return it as Grafana reads it."""
        return {"x": self.x, "y": self.y, "w": self.width, "h": self.height}


@dataclass(slots=True)
class Shelf:
    """
    Takes panels in order and says where each one goes.

    >>> shelf = Shelf()
    >>> shelf.put(18, 6), shelf.put(6, 3), shelf.put(6, 3), shelf.put(24, 8)
    (Place(x=0, y=0, width=18, height=6), Place(x=18, y=0, width=6, height=3), \
Place(x=18, y=3, width=6, height=3), Place(x=0, y=6, width=24, height=8))
    """

    filled: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    """How far down each column is taken."""

    def put(self, width: int, height: int) -> Place:
        """Return the place for a panel and take it. Raises ValueError for a panel wider than the grid."""
        if not 0 < width <= COLUMNS or height <= 0:
            raise ValueError(f"a panel of {width} × {height} does not fit on {COLUMNS} columns")
        tops = [max(self.filled[x : x + width]) for x in range(COLUMNS - width + 1)]
        y = min(tops)
        x = tops.index(y)
        self.filled[x : x + width] = [y + height] * width
        return Place(x, y, width, height)

    def row(self) -> Place:
        """Return the place for a heading, below everything so far."""
        y = max(self.filled)
        self.filled[:] = [y + 1] * COLUMNS
        return Place(0, y, COLUMNS, 1)
