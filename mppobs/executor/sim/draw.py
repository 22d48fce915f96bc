"""
Chance without a sequence: every draw is named by what it is for.

So a policy that changes the order of things, or adds a second attempt, changes no other draw: two runs that differ in a
policy differ by that policy alone, and the same seed gives the same world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final
from zlib import crc32

_MASK: Final = (1 << 64) - 1
_UNIT: Final = 1 / (1 << 53)
_NORMAL: Final = NormalDist()


def number_of(text: str) -> int:
    """Return a number that stands for a text in draws, the same in every process."""
    return crc32(text.encode())


def uniform(*names: int) -> float:
    """
    Return a number in (0, 1) that depends on the names alone, as if drawn by chance.

    >>> uniform(7, 1) == uniform(7, 1), uniform(7, 1) == uniform(7, 2)
    (True, False)
    >>> round(sum(uniform(7, n) for n in range(10_000)) / 10_000, 1)
    0.5
    """
    # The hash of a tuple of integers is no secret and never changes; it is not well mixed, hence the two steps after it
    # (the finalizer of splitmix64).
    word = hash(names) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((word ^ (word >> 31)) >> 11) + 0.5) * _UNIT


def lognormal(sigma: float, *names: int) -> float:
    """Return a factor whose median is 1 and whose logarithm has this standard deviation: how task times vary."""
    return math.exp(sigma * _NORMAL.inv_cdf(uniform(*names))) if sigma else 1.0


def choose(count: int, share: float, *names: int) -> Sequence[int]:
    """
    Return so large a share of `range(count)`, one at the least where the share is not 0, chosen by the names.

    >>> len(choose(100, 0.05, 7)), choose(100, 0.0, 7)
    (5, [])
    """
    wanted = min(count, max(1, round(count * share))) if share > 0 else 0
    return sorted(sorted(range(count), key=lambda each: uniform(*names, each))[:wanted])
