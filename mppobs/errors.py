"""The errors that mppobs raises to people. Recording never raises: these come from set-up, files and requests."""

from __future__ import annotations

from collections.abc import Iterable


class MppobsError(Exception):
    """The base of every error of this package."""


class ConfigError(MppobsError):
    """Raised when a setting, a file or an argument has no meaning. The message says what, where and what was meant."""


class JournalError(MppobsError):
    """Raised when a journal cannot be read or written as `docs/journal.md` says."""


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Return a hint that names the known word closest to `word`, or lists what there is.

    Used by every message about an unknown key, so that they all read the same.

    >>> nearest("pipline", ["pipeline", "stage"])
    "did you mean 'pipeline'?"
    >>> nearest("zzz", ["pipeline", "stage"])
    'known: pipeline, stage'
    """
    import difflib  # here, since a worker that has no error to explain must not pay for it

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
