"""How child processes learn of the job: from `multiprocessing` by themselves, any other from the environment."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from mppobs.instrument.carrier import VARIABLE

_KEY: Final = "mppobs"
"""Under which `multiprocessing` keeps what its children inherit."""


class Handover:
    """
    What every process inherits that `multiprocessing` starts, by whichever method.

    A forked child inherits the object and has no need of it. For any other it is pickled, by the code that starts the
    process: what arrives is the text that carries the job of that code, as a plain string.
    """

    def __init__(self, carrier: Callable[[], str]) -> None:
        self._carrier = carrier

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self._carrier(),)

    def install(self) -> str:
        """Have children of this process inherit from here on; return what this process inherited, empty for nothing."""
        # Where its import comes later than the first job: that is why it is imported here, and only for jobs.
        from multiprocessing import process

        # There is no public place. Where this one is gone, children start without a job, as those of strangers do.
        inherited: dict[str, Any] | None = getattr(process.current_process(), "_config", None)
        if not isinstance(inherited, dict):
            return ""
        found = inherited.get(_KEY)
        inherited[_KEY] = self
        return found if isinstance(found, str) else ""


class Exports:
    """
    The jobs that are in this process's environment, for children of any kind.

    The one that was exported last and is open is the one that children join; after the last one the variable is what
    it was before the first. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[str] = []
        self._before: str | None = None

    def add(self, carrier: dict[str, str]) -> str:
        """Put a job into the environment; return what `remove` takes."""
        text = variable_text(carrier)
        with self._lock:
            if not self._open:
                self._before = os.environ.get(VARIABLE)
            self._open.append(text)
            os.environ[VARIABLE] = text
        return text

    def remove(self, text: str) -> None:
        """Take a job out of the environment. A value that somebody else has put there meanwhile stays."""
        with self._lock:
            ours = os.environ.get(VARIABLE) == self._open[-1]
            self._open.remove(text)
            now = self._open[-1] if self._open else self._before
            if not ours:
                return
            if now is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = now


def variable_text(carrier: dict[str, str]) -> str:
    """Return a carrier in its form for the environment."""
    return json.dumps(carrier, separators=(",", ":"))
