"""
Quantiles of durations with at most 1 % relative error, over a sliding window, mergeable and durable.

A sketch counts values in buckets whose bounds grow by 2 %, so that the middle of a bucket is within 1 % of
everything in it, whatever the distribution. The window is made of slices of ten minutes: the current one is
dense and cheap to add to, the older ones are packed. Merging adds counts, so the order of merging and the
number of workers that contributed do not matter.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.catalog.metrics import SKETCH_SLICE_SECONDS, SKETCH_SLICES
from mppobs.errors import JournalError

GAMMA: Final = 1.02
"""Each bucket's upper bound over that of the bucket below: relative error (γ − 1) ÷ (γ + 1) = 0.99 %."""
BUCKETS: Final = 2048
"""From 1 ns to 12 years."""

_PER_LOG: Final = 1.0 / math.log(GAMMA)
_SLICE_NS: Final = SKETCH_SLICE_SECONDS * 1_000_000_000
_SLICE_HEAD: Final = struct.Struct("<qHB")
"""Slice number, buckets in use, bytes of a count."""
_MAGIC: Final = b"WS1"


class WindowedSketch:
    """
    Counts of durations by logarithmic bucket, for the current slice of time and the five before it.

    Durations are in nanoseconds, quantiles in seconds. Time comes from the caller and never runs back: what is
    added with an earlier time than before goes to the newest slice.

    >>> sketch = WindowedSketch()
    >>> sketch.add(np.arange(1, 1001) * 1_000_000, now_ns=0)
    >>> abs(sketch.quantile(0.5, now_ns=0) / 0.5 - 1) <= 0.01
    True
    >>> sketch.quantile(0.5, now_ns=3600 * 10**9) is None
    True
    """

    __slots__ = ("_counts", "_current", "_older")

    def __init__(self) -> None:
        self._current = -1
        self._counts: NDArray[np.int64] | None = None
        self._older: dict[int, bytes] = {}

    def add(self, values_ns: NDArray[np.int64], now_ns: int) -> None:
        """Count durations in the slice of `now_ns`; anything below 1 ns counts as 1 ns."""
        if len(values_ns) == 0:
            return
        counts = self._advance(now_ns // _SLICE_NS)
        index = bucket_of(values_ns)
        if len(index) < 64:
            np.add.at(counts, index, 1)
        else:
            counts += np.bincount(index, minlength=BUCKETS)

    def merge(self, other: WindowedSketch) -> None:
        """Add the counts of another sketch, slice by slice."""
        for number, counts in sorted(other._slices()):
            if self._counts is None or number >= self._current:
                mine = self._advance(number)
                mine += counts
            elif number > self._current - SKETCH_SLICES:
                total = counts + _unpack(self._older[number]) if number in self._older else counts
                self._older[number] = _pack(number, total)

    def count(self, now_ns: int) -> int:
        """Return how many durations the window that ends at `now_ns` holds."""
        return int(self._window(now_ns).sum())

    def quantile(self, q: float, now_ns: int) -> float | None:
        """Return the duration in seconds that a share `q` of the window does not pass; `None` where it is empty."""
        return self.quantiles((q,), now_ns)[0]

    def quantiles(self, qs: Sequence[float], now_ns: int) -> list[float | None]:
        """Return several quantiles for the price of one; see `quantile`."""
        cumulated = np.cumsum(self._window(now_ns))
        total = int(cumulated[-1])
        if total == 0:
            return [None] * len(qs)
        ranks = [max(1, math.ceil(q * total)) for q in qs]
        return [value_of(int(index)) for index in np.searchsorted(cumulated, ranks)]

    def to_bytes(self) -> bytes:
        """Return the sketch packed, to be read by `from_bytes`: about 1 kB per slice that is in use."""
        parts = [self._older[number] for number in sorted(self._older)]
        if self._counts is not None:
            parts.append(_pack(self._current, self._counts))
        return _MAGIC + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> WindowedSketch:
        """Return the sketch that `to_bytes` packed. Raises `JournalError` for anything else."""
        if data[:3] != _MAGIC:
            raise JournalError("not a packed sketch")
        packed, at = [], 3
        while at < len(data):
            if at + _SLICE_HEAD.size > len(data):
                raise JournalError("a packed sketch ends early")
            _, used, width = _SLICE_HEAD.unpack_from(data, at)
            end = at + _SLICE_HEAD.size + used * (2 + width)
            if end > len(data) or width not in (1, 2, 4, 8):
                raise JournalError("a packed sketch ends early")
            packed.append(data[at:end])
            at = end
        sketch = cls()
        if packed:
            sketch._current = _number(packed[-1])
            sketch._counts = _unpack(packed[-1])
            sketch._older = {_number(part): part for part in packed[:-1]}
        return sketch

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same counts in the same slices."""
        return isinstance(other, WindowedSketch) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _advance(self, number: int) -> NDArray[np.int64]:
        """Make `number` the current slice if it is newer, and return the counts of the current one."""
        if self._counts is None:
            self._current, self._counts = number, np.zeros(BUCKETS, np.int64)
        elif number > self._current:
            self._older[self._current] = _pack(self._current, self._counts)
            self._older = {old: part for old, part in self._older.items() if old > number - SKETCH_SLICES}
            self._current, self._counts = number, np.zeros(BUCKETS, np.int64)
        return self._counts

    def _slices(self) -> Iterable[tuple[int, NDArray[np.int64]]]:
        """Yield every slice with its counts."""
        for number, part in self._older.items():
            yield number, _unpack(part)
        if self._counts is not None:
            yield self._current, self._counts

    def _window(self, now_ns: int) -> NDArray[np.int64]:
        """Return the counts of the slices that are not too old at `now_ns`, summed."""
        oldest = now_ns // _SLICE_NS - SKETCH_SLICES
        total = np.zeros(BUCKETS, np.int64)
        for number, counts in self._slices():
            if number > oldest:
                total += counts
        return total


def bucket_of(values_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each duration: bucket i holds what is above γ^(i−1) and at most γ^i nanoseconds."""
    scaled = np.log(np.maximum(values_ns, 1))
    scaled *= _PER_LOG
    np.ceil(scaled, out=scaled)
    return np.minimum(scaled, BUCKETS - 1, out=scaled).astype(np.int64)


def value_of(index: int) -> float:
    """
    Return the duration in seconds that stands for a bucket: at most 1 % from everything in it.

    >>> round(value_of(0) * 1e9, 2)
    0.99
    """
    return float(2.0 * GAMMA**index / (GAMMA + 1.0) * 1e-9)


def _pack(number: int, counts: NDArray[np.int64]) -> bytes:
    """Return a slice as its head, the indexes of the buckets in use, and their counts as narrow as they fit."""
    used = np.flatnonzero(counts)
    kept = counts[used]
    peak = int(kept.max()) if len(kept) else 0
    width = next(size for size in (1, 2, 4, 8) if peak < 1 << 8 * size)
    head = _SLICE_HEAD.pack(number, len(used), width)
    return head + used.astype("<u2").tobytes() + kept.astype(f"<u{width}").tobytes()


def _number(part: bytes) -> int:
    return int(_SLICE_HEAD.unpack_from(part)[0])


def _unpack(part: bytes) -> NDArray[np.int64]:
    """Return the counts of a packed slice; buckets out of range are left out."""
    _, used, width = _SLICE_HEAD.unpack_from(part)
    index = np.frombuffer(part, "<u2", used, _SLICE_HEAD.size)
    kept = np.frombuffer(part, f"<u{width}", used, _SLICE_HEAD.size + 2 * used)
    counts = np.zeros(BUCKETS, np.int64)
    inside = index < BUCKETS
    counts[index[inside]] = kept[inside].astype(np.int64)
    return counts
