"""Texts from outside, as they are let in: names without control characters, members of closed lists."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar
from unicodedata import category

from mppobs.errors import nearest

_E = TypeVar("_E", bound=StrEnum)
_UNFIT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of characters, and what begins a new line."""


def clean(name: object) -> str:
    """
    Return a name as one line of text: each run of control characters is one space, and none at the ends.

    >>> clean("nightly\\n"), clean("a\\r\\nb"), clean(7)
    ('nightly', 'a b', '7')
    """
    text = str(name)
    if text.isprintable():
        return text
    return " ".join("".join(" " if category(each) in _UNFIT else each for each in text).split())


def member(kind: type[_E], word: object) -> _E:
    """
    Return the member of a closed list. Raises `ValueError` that lists them and names the nearest.

    >>> from mppobs.model import Tier
    >>> member(Tier, "critcal")
    Traceback (most recent call last):
    ValueError: 'critcal' is none of critical, standard, besteffort: did you mean 'critical'?
    """
    try:
        return kind(str(word))
    except ValueError:
        known = [each.value for each in kind]
        hint = nearest(str(word), known)
        meant = f": {hint}" if hint.startswith("did") else ""
        raise ValueError(f"{word!r} is none of {', '.join(known)}{meant}") from None
