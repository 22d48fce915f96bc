"""Quartiles of a stream of numbers, in buckets a sixteenth wide at most: for thresholds, not for reports."""

from __future__ import annotations

from collections.abc import Sequence


class Sketch:
    """Counts integers by their four highest bits, in a few hundred bytes. Lives as long as its stage."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0

    def add(self, value: int) -> None:
        """
        Count a value, which must not be negative.

        >>> sketch = Sketch()
        >>> for value in (1000, 1000, 1000, 9000):
        ...     sketch.add(value)
        >>> [round(quantile, -2) for quantile in sketch.quantiles((0.5, 1.0))]
        [1000.0, 8700.0]
        """
        shift = max(value.bit_length() - 4, 0)
        key = shift << 4 | value >> shift
        self._buckets[key] = self._buckets.get(key, 0) + 1
        self.count += 1

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the value below which each share of the values is; the shares must rise. Zeros where there is none."""
        found: list[float] = []
        seen = 0
        for key in sorted(self._buckets):
            seen += self._buckets[key]
            while len(found) < len(shares) and seen >= shares[len(found)] * self.count:
                found.append(_middle(key))
        return found or [0.0] * len(shares)


def _middle(key: int) -> float:
    """Return the middle of a bucket, which for small numbers is the number itself."""
    shift, first_bits = key >> 4, key & 15
    return float(first_bits) if shift == 0 else (first_bits + 0.5) * (1 << shift)
