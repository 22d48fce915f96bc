"""
What all tests share: how `hypothesis` looks for examples, how wide the output of commands is, what shares a process.

`make test` looks at the same examples every time, so that a change and not chance decides whether it passes;
`make test-all` looks at others every time. No example has a deadline: the machine may be busy.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest
from hypothesis import settings

collect_ignore = ["typing"]  # read by a type checker; parts of it are wrong on purpose

os.environ["COLUMNS"] = "200"  # whatever the terminal, or the lack of one, says

settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, print_blob=True)
settings.load_profile("steady")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and whatever they start; tests send it on purpose.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ENGINE = re.compile(r"[\[-](dask|ray)[\]-]")
"""In the name of a test that needs an engine."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: send all tests of an engine, or else of a file, to one process: what they share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):
        """One unit of work for each engine, and one for each file."""

        def _split_scope(self, nodeid: str) -> str:
            found = _ENGINE.search(nodeid)
            return found[1] if found is not None else nodeid.split("::")[0]

    return ByEngine(config, log)
